//! Honest evaluation of a frozen encoder.
//!
//! Pictures become a [`FeatureBank`]; a [`KnnProbe`] or a [`LinearProbe`] turns a train and a test bank into a
//! [`Score`]; a [`Ladder`] puts the score of the trained encoder beside everything it has to beat: guessing, raw
//! pixels, centred pixels and the same encoder untrained.
//!
//! Honest by construction: an encoder arrives as a [`FrozenEncoder`](twoview_encoder::FrozenEncoder), which cannot
//! update its statistics (but for [`SupervisedConfig::fine_tune`], whose purpose is to change it); the one hyper-parameter that is searched, the strength of the linear probe's penalty, is
//! chosen on a slice of train; nothing here has a seed to pick from, or sees the test set before the final answer.
//! Results do not depend on the number of threads. Shares are fractions in `[0, 1]`.
//!
//! # Example
//! ```
//! use twoview_data::{PatternsConfig, PatternsSource, Split};
//! use twoview_eval::{FeatureBank, KnnConfig};
//!
//! let pixels = |split, per_class| {
//!     let pictures = PatternsSource::new(PatternsConfig { seed: 0, split, per_class })?;
//!     let bank = FeatureBank::from_pixels(&pictures, 32, &|_, _| {})?;
//!     Ok::<_, Box<dyn std::error::Error>>(bank)
//! };
//! let (train, test) = (pixels(Split::Train, 8)?, pixels(Split::Test, 4)?);
//! let raw = KnnConfig { k: 10, temperature: 0.1 }.init(&train)?.evaluate(&test)?;
//! let mean = train.mean(); // Of train: the test set takes no part in preparing itself.
//! let (train, test) = (train.centered_by(&mean)?, test.centered_by(&mean)?);
//! let centred = KnnConfig { k: 10, temperature: 0.1 }.init(&train)?.evaluate(&test)?;
//! println!("chance {}, raw pixels {}, centred {}", test.majority_share(), raw.top1, centred.top1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod extract;
mod feature_bank;
mod few_shot;
mod k_means;
mod knn;
mod knn_grid;
mod ladder;
mod lbfgs;
mod linear_probe;
mod matrix;
mod nearest;
mod neighbour_map;
mod preconditioner;
mod predictions;
mod principal_components;
mod score;
mod softmax_regression;
mod split;
mod supervised;

pub use extract::{ExtractError, extract_features, stream_features};
pub use feature_bank::{FeatureBank, FeatureBankError};
pub use few_shot::{FewShot, FewShotConfig, FewShotError};
pub use k_means::{KMeans, KMeansConfig, KMeansError};
pub use knn::{KnnConfig, KnnError, KnnProbe, Vote};
pub use knn_grid::{KnnChoice, KnnGrid, KnnGridError};
pub use ladder::{Ladder, Rungs};
pub use linear_probe::{HeldOutFit, LinearClassifier, LinearFit, LinearProbe, LinearProbeConfig, LinearProbeError};
pub use nearest::{NearestError, NearestRows, Neighbour};
pub use neighbour_map::{NeighbourMapError, neighbour_map};
pub use predictions::{ClassScore, Confusion, PairedTest, Predictions, PredictionsError};
pub use principal_components::{PrincipalComponents, PrincipalComponentsError};
pub use score::{Score, ScoreError};
pub use split::{Split, SplitError};
pub use supervised::{Classifier, SupervisedConfig, SupervisedConfigError, SupervisedError};

//! A report of made pictures, with everything that a page can show.

use twoview_pixels::Image;
use twoview_report::{
    Cell, Confusion, EmbeddingMap, Fact, GalleryRow, KnnRow, MapNeighbour, MapPicture, Pair, PairList, Picture,
    Projection, Reference, Report, Rung, ScoreLadder, Section, StepRow, contact_sheet,
};

const CLASSES: [&str; 10] =
    ["bricks", "checks", "dots", "grid", "plus", "rings", "spokes", "stripes", "triangles", "zigzag"];

/// Numbers in `[0, 1)` that look random and are the same every time.
pub(crate) struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f32::from(u16::try_from(self.0 >> 48).expect("16 bits")) / 65536.0
    }

    fn below(&mut self, end: usize) -> usize {
        let share = f64::from(self.next());
        (0..end).take_while(|at| (*at as f64) < share * end as f64).count().saturating_sub(1)
    }

    /// Close enough to a normal draw for a picture of one.
    fn bell(&mut self) -> f32 {
        (0..6).map(|_| self.next()).sum::<f32>() - 3.0
    }
}

/// A pattern of a class in colours of its own, with noise as a photograph has it.
fn pattern(class: usize, side: u32, draws: &mut Draws) -> Image {
    let mut color = || [0, 1, 2].map(|_| 30.0 + 200.0 * draws.next());
    let (front, back) = (color(), color());
    let (period, turn) = (5.0 + 9.0 * draws.next(), 3.2 * draws.next());
    let mut pixels = Vec::new();
    for y in 0..side {
        for x in 0..side {
            let (x, y) = (x as f32 - side as f32 / 2.0, y as f32 - side as f32 / 2.0);
            let (u, v) = (x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos());
            let wave = |value: f32| (value / period * 6.283).sin();
            let level = match class {
                0 => wave(u).max(wave(v + if wave(u / 2.0) > 0.0 { period / 2.0 } else { 0.0 })),
                1 => wave(u) * wave(v) * 2.0,
                2 => wave(u) + wave(v) - 0.6,
                3 => wave(u).max(wave(v)) - 0.5,
                4 => 4.0 - u.abs().min(v.abs()),
                5 => wave(u.hypot(v)),
                6 => (v.atan2(u) * period.round()).sin(),
                7 => wave(u),
                8 => wave(u + v.abs() * 0.6),
                _ => wave(u + 3.0 * wave(v)),
            };
            let share = (level * 1.5 + 0.5).clamp(0.0, 1.0);
            let noise = 22.0 * (draws.next() - 0.5);
            pixels.extend([0, 1, 2].map(|c| (front[c] * share + back[c] * (1.0 - share) + noise) as u8));
        }
    }
    Image::from_rgb8(side, side, pixels).expect("a valid size")
}

fn picture(class: usize, at: usize, draws: &mut Draws) -> Picture {
    let name = format!("{}/{at:05}.png", CLASSES[class]);
    Picture { name, class: Some(class), image: pattern(class, 64, draws) }
}

/// Each picture near the middle of its class, in two ways; neighbours are the nearest in the first.
fn map(count: usize, draws: &mut Draws) -> EmbeddingMap {
    let classes: Vec<usize> = (0..count).map(|at| at % CLASSES.len()).collect();
    let place = |class: usize, spread: f32, draws: &mut Draws| {
        let angle = class as f32 * 2.4;
        let out = 1.2 * (class as f32 + 1.0).sqrt();
        [out * angle.cos() + spread * draws.bell(), out * angle.sin() + 0.7 * spread * draws.bell()]
    };
    let loose: Vec<[f32; 2]> = classes.iter().map(|class| place(*class, 0.8, draws)).collect();
    let tight: Vec<[f32; 2]> = classes.iter().map(|class| place(*class, 0.38, draws)).collect();
    let nearest = |at: usize| {
        let [x, y] = tight[at];
        let mut others: Vec<(f32, usize)> = Vec::new();
        for (other, [a, b]) in tight.iter().enumerate() {
            let far = (x - a).powi(2) + (y - b).powi(2);
            if far < 0.05 && other != at {
                others.push((far, other));
            }
        }
        others.sort_by(|a, b| a.0.total_cmp(&b.0));
        others.iter().take(8).map(|(far, other)| MapNeighbour { picture: *other, cosine: 1.0 - far }).collect()
    };
    let pictures = classes.iter().enumerate().map(|(at, class)| MapPicture {
        name: format!("{}/{at:05}.png", CLASSES[*class]),
        class: Some(*class),
        cluster: Some((*class * 7 + at % 3) % 12),
        thumbnail: pattern(*class, 48, draws),
        neighbours: nearest(at),
    });
    let pictures = pictures.collect();
    let projection = |name: &str, note: &str, places| Projection { name: name.into(), note: note.into(), places };
    let projections = vec![
        projection("t-SNE", "t-SNE keeps who is near whom; sizes of clusters and gaps mean little.", tight),
        projection("PCA", "PCA keeps the two directions of largest variance: 31 % of it.", loose),
    ];
    EmbeddingMap { pictures, projections }
}

/// A curve like that of a real run, for want of one.
pub(crate) fn made_steps(count: u64) -> Vec<StepRow> {
    let mut draws = Draws(3);
    let row = |step: u64| {
        let done = step as f32 / count as f32;
        let fall = (-4.0 * done).exp();
        let mut around = |value: f32, noise: f32| Some(value + noise * draws.bell());
        StepRow {
            step,
            epoch: Some(done * 8.0),
            chance: Some(4.844),
            floor: Some(0.615),
            loss: around(2.9 + 2.0 * fall, 0.15),
            lr: Some(0.1 * (1.0 + (3.14 * done).cos()) / 2.0),
            alignment: around(0.3 + 0.8 * fall, 0.04),
            uniformity: around(-2.4 + 0.6 * fall, 0.05),
            effective_rank: around(14.0 - 6.0 * fall, 0.5),
            top1: around(0.3 - 0.3 * fall, 0.015),
            positive_percentiles: Some([around(0.5 - 0.3 * fall, 0.05), around(0.9 - 0.4 * fall, 0.02), Some(0.98)]),
            negative_percentiles: Some([around(-0.5, 0.05), around(0.2, 0.02), around(0.8, 0.02)]),
            clamped: None,
            gradient_norm: around(2.0 + 9.0 * fall, 0.8),
            images_per_s: around(330.0, 12.0),
            knn: None,
        }
    };
    (1..=count).map(row).collect()
}

/// A report on so many made pictures, and these measurements.
pub(crate) fn sample(pictures: usize, mut steps: Vec<StepRow>) -> Report {
    let mut draws = Draws(1);
    let last = steps.len() - 1;
    if steps.iter().all(|row| row.knn.is_none()) {
        for at in 0..=8 {
            let row = &mut steps[last * at / 8];
            row.knn = Some(KnnRow { top1: Some(0.28 + 0.3 * (1.0 - (-0.4 * at as f32).exp())), chance: Some(0.1) });
        }
    }
    let rung = |label: &str, value: f64, interval| Rung { label: label.into(), value, interval };
    let ladder = |title: &str, protocol: &str, trained: f64| ScoreLadder {
        title: title.into(),
        protocol: protocol.into(),
        rungs: vec![
            rung("chance", 0.1, None),
            rung("raw pixels", 0.13, Some([0.116, 0.145])),
            rung("centred pixels", 0.14, Some([0.126, 0.156])),
            rung("untrained", 0.282, Some([0.263, 0.302])),
            rung("trained", trained, Some([trained - 0.022, trained + 0.021])),
        ],
    };
    let mut counts = vec![vec![0; CLASSES.len()]; CLASSES.len()];
    for _ in 0..2000 {
        let is = draws.below(CLASSES.len());
        let taken_for = if draws.next() < 0.62 { is } else { (is + 1 + draws.below(3)) % CLASSES.len() };
        counts[is][taken_for] += 1;
    }
    let gallery = (0..8).map(|at| {
        let found = (0..8).map(|k| {
            let class = if draws.next() < 0.7 { at } else { (at + 1) % CLASSES.len() };
            (picture(class, 100 * at + k, &mut draws), 0.98 - 0.02 * k as f32)
        });
        let found = found.collect();
        GalleryRow { query: picture(at, at, &mut draws), found }
    });
    let gallery = gallery.collect();
    let mut pairs = |title: &str, note: &str, cosine: f32, other: usize| PairList {
        title: title.into(),
        note: note.into(),
        pairs: (0..6)
            .map(|at| Pair {
                pictures: [picture(at, at, &mut draws), picture((at + other) % CLASSES.len(), 10 * at, &mut draws)],
                cosine: cosine - 0.004 * at as f32,
            })
            .collect(),
    };
    let pairs = vec![
        pairs(
            "Look the same, count as different",
            "Different files with nearly the same embedding: duplicates, or false negatives that training pushed apart.",
            0.999,
            0,
        ),
        pairs(
            "Hardest pairs",
            "The nearest pictures of different classes: what the encoder cannot tell apart.",
            0.97,
            1,
        ),
    ];
    let cell =
        |class, caption: &str, draws: &mut Draws| Cell { picture: pattern(class, 96, draws), caption: caption.into() };
    let sheet: Vec<Vec<Cell>> = (0..4)
        .map(|class| {
            (0..5)
                .map(|at| cell(class, ["original", "crop, grey", "crop, flip", "hue", "blur"][at], &mut draws))
                .collect()
        })
        .collect();
    Report {
        name: "sample-1".into(),
        about: "A sample with made pictures and made scores, to see what a page looks like: nothing here was measured \
                except, where a file was given, the curves."
            .into(),
        made: "made on 26 November 2026, 20:33".into(),
        program: "twoview 0.1.0".into(),
        duration_s: Some(1093.0),
        warnings: vec![
            "The effective rank fell to 2.9 of 64 directions: the embedding may be collapsing. Try a lower learning rate.".into(),
        ],
        data: vec![
            Fact::new("Source", "patterns, seed 0"),
            Fact::new("Pictures", "3,000 in 10 classes"),
            Fact::new("Passed over", "2 of 3,002: see bad_files.jsonl"),
            Fact::new("Fingerprint", "0aceec0a29879b083c2a81c091e8bd86"),
        ],
        environment: vec![
            Fact::new("Device", "CPU (flex), 2 threads"),
            Fact::new("System", "Linux x86-64, AVX2"),
            Fact::new("Encoder", "ResNet-18, width 8, CIFAR stem"),
        ],
        config: Some("seed = 0\n\n[length]\nepochs = 8.0\n\n[loss]\nkind = \"nt_xent\"\ntemperature = 0.2\n".into()),
        classes: CLASSES.map(String::from).into(),
        steps: Section::Present(steps),
        knn_references: vec![
            Reference { label: "untrained".into(), value: 0.282 },
            Reference { label: "raw pixels".into(), value: 0.13 },
        ],
        scores: Section::Present(vec![
            ladder("kNN", "k = 20, temperature 0.1; 3,000 train and 2,000 test pictures of 10 classes.", 0.581),
            ladder("Linear probe", "L2 chosen on a tenth of train; 3,000 train and 2,000 test pictures.", 0.642),
        ]),
        confusion: Section::Present(Confusion { of: "kNN, k = 20".into(), counts }),
        map: Section::Present(map(pictures, &mut draws)),
        neighbours: Section::Present(gallery),
        augmentations: Section::Present(contact_sheet(&sheet, 96).expect("a sheet")),
        pairs: Section::Present(pairs),
    }
}

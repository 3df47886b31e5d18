//! The memory that kernels work in, used again for every picture.

use crate::Instructions;
use crate::blur::BlurBuffers;
use crate::resample::ResampleBuffers;

/// Buffers of the kernels, and the instructions they run on. One for each thread.
///
/// The buffers grow to what the largest picture needs and stay, so that nothing is allocated from picture to picture.
/// They carry nothing over from one kernel to the next.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) instructions: Instructions,
    pub(crate) resample: ResampleBuffers,
    pub(crate) blur: BlurBuffers,
}

impl Workspace {
    /// An empty workspace for kernels on these instructions.
    pub fn new(instructions: Instructions) -> Workspace {
        Workspace { instructions, resample: ResampleBuffers::default(), blur: BlurBuffers::default() }
    }

    /// The instructions that kernels run on.
    pub fn instructions(&self) -> Instructions {
        self.instructions
    }
}

/// On the best instructions this processor has.
impl Default for Workspace {
    fn default() -> Self {
        Workspace::new(Instructions::best())
    }
}

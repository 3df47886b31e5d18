//! The patches of a picture under a sliding kernel, as columns of a matrix (im2col).
//!
//! Pictures are first placed into a zero frame, so that no patch crosses a border. An element of
//! the column matrix then stands at `tap + pixel` in the frame: one table of offsets for the rows (channel and
//! position in the kernel), one for the columns (picture and position of the patch). Pixels that are
//! neighbours in the frame are copied as a run.

use std::ops::Range;

use super::geometry::Geometry;
use super::vectorized::vectorized;

/// How pictures of `[channels, height, width]` are framed and cut into patches.
#[derive(Debug, Clone)]
pub(super) struct Patches {
    /// Elements of one picture.
    pub(super) picture: usize,
    /// Offset of each row of the column matrix in the frame.
    taps: Vec<usize>,
    /// Positions of the kernel per picture, `[height, width]`.
    positions: [usize; 2],
    step: [usize; 2],
    channels: usize,
    size: [usize; 2],
    frame: [usize; 2],
    /// Where the frame holds the first element of the picture; may lie outside.
    shift: [isize; 2],
    /// Distance in the frame of two neighbours in the picture.
    spread: [usize; 2],
    /// Length of the runs that are copied at once.
    run: usize,
}

impl Patches {
    /// The patches of the input that the forward pass and the weight gradient see.
    pub(super) fn of_input(geometry: &Geometry) -> Self {
        let Geometry { in_size, padding, .. } = *geometry;
        Self {
            shift: padding.map(usize::cast_signed),
            ..Self::new(
                geometry.in_channels,
                in_size,
                [in_size[0] + 2 * padding[0], in_size[1] + 2 * padding[1]],
                [1, 1],
                geometry.kernel,
                geometry.stride,
                geometry.out_size,
            )
        }
    }

    /// The patches of the output gradient whose correlation with the flipped kernel is the input gradient.
    ///
    /// The gradient is spread by the stride, and framed so that the kernel visits each input pixel once.
    pub(super) fn of_output_gradient(geometry: &Geometry) -> Self {
        let Geometry { in_size, kernel, padding, .. } = *geometry;
        let shift = |axis: usize| (kernel[axis] - 1).cast_signed() - padding[axis].cast_signed();
        Self {
            shift: [shift(0), shift(1)],
            ..Self::new(
                geometry.out_channels,
                geometry.out_size,
                [in_size[0] + kernel[0] - 1, in_size[1] + kernel[1] - 1],
                geometry.stride,
                kernel,
                [1, 1],
                in_size,
            )
        }
    }

    fn new(
        channels: usize,
        size: [usize; 2],
        frame: [usize; 2],
        spread: [usize; 2],
        kernel: [usize; 2],
        step: [usize; 2],
        positions: [usize; 2],
    ) -> Self {
        let taps = (0..channels * kernel[0] * kernel[1])
            .map(|tap| {
                let (channel, row, column) =
                    (tap / kernel[1] / kernel[0], tap / kernel[1] % kernel[0], tap % kernel[1]);
                (channel * frame[0] + row) * frame[1] + column
            })
            .collect();
        let picture = channels * size[0] * size[1];
        // Where the kernel covers the whole width of one frame row at a time, rows join up.
        let joined = kernel == [1, 1] && step == [1, 1] && positions == frame;
        let row = if joined { positions[0] * positions[1] } else { positions[1] };
        let run = match step[1] {
            1 => [16, 8, 4].into_iter().find(|run| row.is_multiple_of(*run)).unwrap_or(1),
            _ => 1,
        };
        Self { picture, taps, positions, step, channels, size, frame, shift: [0, 0], spread, run }
    }

    /// Rows of the column matrix: channels times taps.
    pub(super) fn depth(&self) -> usize {
        self.taps.len()
    }

    /// Columns of the column matrix per picture.
    pub(super) fn pixels(&self) -> usize {
        self.positions[0] * self.positions[1]
    }

    /// Elements of one framed picture.
    pub(super) fn frame(&self) -> usize {
        self.channels * self.frame[0] * self.frame[1]
    }

    /// Returns the pictures in their frames, which are in `buffer` unless the pictures fill them anyway.
    pub(super) fn place<'a>(&self, pictures: &'a [f32], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        if self.frame == self.size && self.shift == [0, 0] && self.spread == [1, 1] {
            return pictures;
        }
        buffer.clear();
        buffer.resize(pictures.len() / self.picture * self.frame(), 0.0);
        let planes = pictures.chunks_exact(self.size[0] * self.size[1]);
        for (frame, plane) in buffer.chunks_exact_mut(self.frame[0] * self.frame[1]).zip(planes) {
            for (y, row) in plane.chunks_exact(self.size[1]).enumerate() {
                if let Some(y) = self.at(0, y) {
                    self.place_row(row, &mut frame[y * self.frame[1]..][..self.frame[1]]);
                }
            }
        }
        buffer
    }

    fn place_row(&self, row: &[f32], frame: &mut [f32]) {
        let first = self.shift[1].max(0).cast_unsigned();
        if self.spread[1] == 1 && self.shift[1] >= 0 && first + row.len() <= frame.len() {
            frame[first..][..row.len()].copy_from_slice(row);
            return;
        }
        for (x, &value) in row.iter().enumerate() {
            if let Some(x) = self.at(1, x) {
                frame[x] = value;
            }
        }
    }

    /// Where the frame holds index `i` of the picture along `axis`, unless that lies outside.
    fn at(&self, axis: usize, i: usize) -> Option<usize> {
        let at = (i * self.spread[axis]).checked_add_signed(self.shift[axis])?;
        (at < self.frame[axis]).then_some(at)
    }

    /// Writes rows `taps` and columns `pixels` of the column matrix of framed pictures to `out`, rows `stride` apart.
    ///
    /// Columns are numbered through all pictures of `framed`. `starts` is scratch.
    pub(super) fn gather(
        &self,
        framed: &[f32],
        taps: Range<usize>,
        pixels: Range<usize>,
        starts: &mut Vec<usize>,
        out: &mut [f32],
        stride: usize,
    ) {
        // Runs never straddle a row, because their length divides the row's and hence any start.
        let run =
            if pixels.start.is_multiple_of(self.run) && pixels.len().is_multiple_of(self.run) { self.run } else { 1 };
        starts.clear();
        starts.extend(pixels.step_by(run).map(|pixel| {
            let (picture, pixel) = (pixel / self.pixels(), pixel % self.pixels());
            let (y, x) = (pixel / self.positions[1], pixel % self.positions[1]);
            picture * self.frame() + y * self.step[0] * self.frame[1] + x * self.step[1]
        }));
        let taps = &self.taps[taps];
        match run {
            16 => gather_runs::<16>(framed, taps, starts, out, stride),
            8 => gather_runs::<8>(framed, taps, starts, out, stride),
            4 => gather_runs::<4>(framed, taps, starts, out, stride),
            _ => gather_runs::<1>(framed, taps, starts, out, stride),
        }
    }
}

vectorized! {
    /// Copies runs of `RUN` elements: row `k` of `out` gets those at `taps[k] + starts[..]`.
    fn gather_runs<const RUN: usize>(
        framed: &[f32],
        taps: &[usize],
        starts: &[usize],
        out: &mut [f32],
        stride: usize,
    ) {
        for (row, &tap) in out.chunks_mut(stride).zip(taps) {
            let (runs, _) = row.as_chunks_mut::<RUN>();
            let source = &framed[tap..];
            for (run, &start) in runs.iter_mut().zip(starts) {
                run.copy_from_slice(&source[start..start + RUN]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_the_patches_in_order() {
        // One 3×3 picture, 2×2 kernel, padding 1, stride 2: patches start at (−1, −1), (−1, 1), (1, −1), (1, 1).
        let geometry = Geometry::new([1, 1, 3, 3], [1, 1, 2, 2], [2, 2], [1, 1]).expect("fits");
        let patches = Patches::of_input(&geometry);
        let picture: Vec<f32> = (1u8..=9).map(f32::from).collect();
        let mut buffer = Vec::new();
        let framed = patches.place(&picture, &mut buffer);
        let mut out = vec![0.0; patches.depth() * 4];
        patches.gather(framed, 0..patches.depth(), 0..4, &mut Vec::new(), &mut out, 4);
        assert_eq!(
            out,
            [
                [0.0, 0.0, 0.0, 5.0], // Tap (0, 0) of the four patches.
                [0.0, 0.0, 4.0, 6.0],
                [0.0, 2.0, 0.0, 8.0],
                [1.0, 3.0, 7.0, 9.0],
            ]
            .concat()
        );
    }
}

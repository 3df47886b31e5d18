//! How the work on a batch is cut into tasks.

use std::ops::Range;

use super::product::PANEL;

/// Tasks that an operation is cut into at least, where its size allows: enough for the threads of a workstation.
const TASKS: usize = 16;

/// Some pictures, or some rows of one picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) images: Range<usize>,
    pub(super) rows: Range<usize>,
}

/// Cuts `images` grids of `rows × columns` into regions of about `target` positions.
///
/// Rows are cut at multiples of `multiple`. The cuts follow from the sizes alone, so results do not depend on
/// the number of threads.
pub(super) fn regions(images: usize, [rows, columns]: [usize; 2], target: usize, multiple: usize) -> Vec<Region> {
    let positions = (rows * columns).max(1);
    if positions >= 2 * target {
        let height = target.div_ceil(columns).next_multiple_of(multiple);
        let cut = |image: usize| {
            let starts = (0..rows).step_by(height);
            starts.map(move |row| Region { images: image..image + 1, rows: row..(row + height).min(rows) })
        };
        return (0..images).flat_map(cut).collect();
    }
    let group = target.div_ceil(positions);
    let starts = (0..images).step_by(group);
    starts.map(|image| Region { images: image..(image + group).min(images), rows: 0..rows }).collect()
}

/// Cuts `width` columns so that `others` tasks become about [`TASKS`], at multiples of [`PANEL`].
pub(super) fn column_blocks(width: usize, others: usize) -> Vec<Range<usize>> {
    let panels = width.div_ceil(PANEL);
    let blocks = TASKS.div_ceil(others.max(1)).min(panels);
    let block = panels.div_ceil(blocks.max(1)) * PANEL;
    (0..width).step_by(block.max(1)).map(|start| start..(start + block).min(width)).collect()
}

/// Cuts `images` into runs for sums over the batch, so that `others` tasks become about [`TASKS`].
pub(super) fn image_chunks(images: usize, others: usize) -> Vec<Range<usize>> {
    let chunk = images.div_ceil(TASKS.div_ceil(others.max(1)));
    (0..images).step_by(chunk.max(1)).map(|start| start..(start + chunk).min(images)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_cover_every_position_once() {
        for (images, size, target, multiple) in
            [(5, [4, 4], 64, 4), (2, [33, 20], 100, 4), (1, [1, 1], 9, 1), (3, [7, 7], 49, 4), (1, [112, 112], 2048, 4)]
        {
            let mut seen = vec![0; images * size[0]];
            for Region { images, rows } in regions(images, size, target, multiple) {
                assert!(rows.start.is_multiple_of(multiple));
                assert!(images.len() == 1 || rows == (0..size[0]));
                for image in images {
                    rows.clone().for_each(|row| seen[image * size[0] + row] += 1);
                }
            }
            assert!(seen.iter().all(|&times| times == 1), "{size:?}");
        }
    }

    #[test]
    fn blocks_and_chunks_cover_their_range() {
        for (width, others) in [(16, 1), (512, 2), (512, 100), (80, 1), (2048, 3)] {
            let blocks = column_blocks(width, others);
            assert_eq!(blocks.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..width).collect::<Vec<_>>());
            assert!(blocks.iter().all(|block| block.start.is_multiple_of(PANEL)));
        }
        assert_eq!(image_chunks(5, 1), [0..1, 1..2, 2..3, 3..4, 4..5]);
        assert_eq!(image_chunks(64, 8), [0..32, 32..64]);
        assert_eq!(image_chunks(64, 40).len(), 1);
    }
}

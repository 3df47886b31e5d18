//! Groups of pictures that show the same thing: found, written as lines of JSON, read back, and known to a source.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use twoview_pixels::Image;

use crate::perceptual_hash::Look;
use crate::{Fingerprint, ReadBuffers, SampleError, Source, escape_path};

/// In how many of the 64 bits of their hashes two pictures may differ and still be compared, unless asked otherwise.
pub const NEAR_BITS: u32 = 6;

/// The most bits that [`DuplicateGroup`]s can be searched with: beyond it the search would miss some.
pub const MAX_NEAR_BITS: u32 = 2 * BANDS - 1;

/// Parts of a hash that are looked up on their own.
const BANDS: u32 = 4;

/// How the pictures of a group resemble each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Likeness {
    /// Their files are byte for byte the same.
    Exact,
    /// They look the same: resized, saved anew, brightened, or taken one right after the other.
    Near,
}

/// Pictures that show the same thing; a line of `duplicates.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuplicateGroup {
    /// How they resemble each other.
    pub kind: Likeness,
    /// The largest number of bits, of 64, in which the perceptual hash of the first picture differs from another's.
    pub distance: u32,
    /// Their names as [`Source::name`] spells them, in the order of the source; at least two.
    pub paths: Vec<String>,
}

/// Sets that grow together: union by the smaller number, so that a set is called by its first member.
struct Sets {
    parent: Vec<u32>,
}

impl Sets {
    fn new(n: usize) -> Self {
        Self { parent: (0..u32::try_from(n).unwrap_or(u32::MAX)).collect() }
    }

    fn first_of(&mut self, mut i: u32) -> u32 {
        while self.parent[i as usize] != i {
            let grandparent = self.parent[self.parent[i as usize] as usize];
            self.parent[i as usize] = grandparent;
            i = grandparent;
        }
        i
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.first_of(a), self.first_of(b));
        self.parent[a.max(b) as usize] = a.min(b);
    }

    /// The sets of more than one member, by their first; members ascend.
    fn groups(&mut self) -> Vec<Vec<u32>> {
        let mut by_first: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for i in 0..u32::try_from(self.parent.len()).unwrap_or(u32::MAX) {
            by_first.entry(self.first_of(i)).or_default().push(i);
        }
        by_first.into_values().filter(|members| members.len() > 1).collect()
    }
}

/// What pictures of a source show the same: first those in `same_as`, each with the first of its kind, then those whose
/// looks are alike within `near_bits`.
pub(crate) fn duplicate_groups(
    source: &dyn Source,
    same_as: &HashMap<u32, u32>,
    looks: &[(u32, Look)],
    near_bits: u32,
) -> Vec<DuplicateGroup> {
    let mut sets = Sets::new(source.len());
    same_as.iter().for_each(|(&i, &first)| sets.join(first, i));
    let mut groups = Vec::new();
    let name = |&i: &u32| source.name(i as usize).into_owned();
    for members in sets.groups() {
        groups.push(DuplicateGroup { kind: Likeness::Exact, distance: 0, paths: members.iter().map(name).collect() });
    }
    // What is the same looks the same; one of them stands for all.
    let distinct: Vec<(u32, Look)> = looks.iter().filter(|(i, _)| !same_as.contains_key(i)).cloned().collect();
    join_near(&distinct, near_bits, &mut sets);
    let looks: HashMap<u32, &Look> = distinct.iter().map(|(i, look)| (*i, look)).collect();
    for members in sets.groups() {
        let shown: Vec<&Look> = members.iter().filter_map(|i| looks.get(i).copied()).collect();
        if let [first, others @ ..] = shown.as_slice()
            && !others.is_empty()
        {
            let distance = others.iter().map(|other| first.distance(other)).max().unwrap_or(0);
            groups.push(DuplicateGroup { kind: Likeness::Near, distance, paths: members.iter().map(name).collect() });
        }
    }
    groups
}

/// Joins what looks alike: hashes that differ in at most `near_bits` bits, verified on the small pictures.
///
/// Two hashes that differ in fewer than `2 · BANDS` bits differ in at most one bit of some band, so that every pair is
/// found among the pictures with the same band or a neighbour of it; other pairs are not looked at.
///
/// # Source
/// Norouzi, Punjani, Fleet, *Fast Search in Hamming Space with Multi-Index Hashing*, CVPR 2012.
/// <https://arxiv.org/abs/1307.2982>
fn join_near(looks: &[(u32, Look)], near_bits: u32, sets: &mut Sets) {
    let near_bits = near_bits.min(MAX_NEAR_BITS);
    for band in 0..BANDS {
        let value = |look: &Look| {
            usize::from((look.hash() >> (16 * band)).to_le_bytes()[0])
                | usize::from((look.hash() >> (16 * band)).to_le_bytes()[1]) << 8
        };
        // Counting sort of the pictures by this band.
        let mut starts = vec![0u32; (1 << 16) + 1];
        for (_, look) in looks {
            starts[value(look) + 1] += 1;
        }
        for i in 0..1 << 16 {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut sorted = vec![0u32; looks.len()];
        for (i, (_, look)) in (0..).zip(looks) {
            let at = &mut next[value(look)];
            sorted[*at as usize] = i;
            *at += 1;
        }
        for (i, (picture, look)) in looks.iter().enumerate() {
            let own = value(look);
            for probed in std::iter::once(own).chain((0..16).map(|bit| own ^ 1 << bit)) {
                for &j in &sorted[starts[probed] as usize..starts[probed + 1] as usize] {
                    let (other_picture, other) = &looks[j as usize];
                    if (j as usize) < i
                        && look.distance(other) <= near_bits
                        && sets.first_of(*picture) != sets.first_of(*other_picture)
                        && look.agrees_with(other)
                    {
                        sets.join(*picture, *other_picture);
                    }
                }
            }
        }
    }
}

/// The groups as lines of JSON, one each.
pub fn duplicates_text(groups: &[DuplicateGroup]) -> String {
    // A group is text and numbers, which JSON can always hold.
    groups.iter().filter_map(|group| serde_json::to_string(group).ok()).map(|line| line + "\n").collect()
}

/// Why a list of duplicates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DuplicatesError {
    /// The file cannot be read.
    #[error("{} cannot be read: {reason}", escape_path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// A line is no group.
    #[error("{}, line {line}: {reason}; expected a line of `twoview data check --duplicates FILE`", escape_path(path))]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads what [`duplicates_text`] wrote.
///
/// # Errors
/// [`DuplicatesError`].
pub fn read_duplicates(path: &Path) -> Result<Vec<DuplicateGroup>, DuplicatesError> {
    let text =
        std::fs::read_to_string(path).map_err(|reason| DuplicatesError::Read { path: path.to_owned(), reason })?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(line, text)| {
            serde_json::from_str(text).map_err(|error| DuplicatesError::Line {
                path: path.to_owned(),
                line,
                reason: error.to_string(),
            })
        })
        .collect()
}

/// A source together with a list of which of its pictures show the same thing.
///
/// It answers as the source does but for [`group`](Source::group), so that objectives do not push apart what is the
/// same. Groups of the list and of the source that share a picture become one.
pub struct KnownDuplicates {
    source: Arc<dyn Source>,
    /// Pictures that are not called by their own number.
    groups: HashMap<usize, u64>,
    unknown: Vec<String>,
    fingerprint: Fingerprint,
}

impl KnownDuplicates {
    /// Looks the names of `groups` up in `source`.
    pub fn new(source: Arc<dyn Source>, groups: &[DuplicateGroup]) -> Self {
        let mut wanted: HashMap<&str, Option<usize>> =
            groups.iter().flat_map(|group| &group.paths).map(|name| (name.as_str(), None)).collect();
        let mut sets = Sets::new(source.len());
        let number = |i: u64| u32::try_from(i).unwrap_or(u32::MAX);
        for i in 0..source.len() {
            if let Some(place) = wanted.get_mut(source.name(i).as_ref()) {
                *place = Some(i);
            }
            sets.join(number(i as u64), number(source.group(i)));
        }
        let mut unknown = Vec::new();
        for group in groups {
            let mut first = None;
            for name in &group.paths {
                let Some(i) = wanted.get(name.as_str()).copied().flatten() else {
                    unknown.push(name.clone());
                    continue;
                };
                sets.join(number(*first.get_or_insert(i) as u64), number(i as u64));
            }
        }
        let members = sets.groups();
        let mut identity = Vec::new();
        let mut of = HashMap::new();
        for members in &members {
            for &i in members {
                of.insert(i as usize, u64::from(members[0]));
                identity.extend(i.to_le_bytes());
                identity.extend(members[0].to_le_bytes());
            }
        }
        Self { source, groups: of, unknown, fingerprint: Fingerprint::of(&identity) }
    }

    /// Names of the list that the source does not have, such as those of removed pictures.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// How many pictures share their group with another.
    pub fn n_grouped(&self) -> usize {
        self.groups.len()
    }

    /// A name for the grouping: it changes when other pictures are taken for the same.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl Source for KnownDuplicates {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.source.label(i)
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        self.source.name(i)
    }

    fn path(&self, i: usize) -> PathBuf {
        self.source.path(i)
    }

    fn group(&self, i: usize) -> u64 {
        self.groups.get(&i).copied().unwrap_or(i as u64)
    }

    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        self.source.read(i, buffers)
    }

    fn read_file(&self, i: usize, buffers: &mut ReadBuffers) -> Result<bool, SampleError> {
        self.source.read_file(i, buffers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_called_by_their_first_member() {
        let mut sets = Sets::new(8);
        for (a, b) in [(5, 3), (7, 5), (1, 2), (3, 7)] {
            sets.join(a, b);
        }
        assert_eq!(sets.first_of(7), 3);
        assert_eq!(sets.groups(), [vec![1, 2], vec![3, 5, 7]]);
    }
}

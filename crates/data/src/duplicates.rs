//! Groups of pictures that show the same thing: found, written as lines of JSON, read back, and known to a source.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use twoview_pixels::Image;

use crate::perceptual_hash::{Apart, Look};
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
    /// An encoder finds them nearly the same.
    Embedding,
}

/// Pictures that show the same thing; a line of `duplicates.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuplicateGroup {
    /// How they resemble each other.
    pub kind: Likeness,
    /// Of near ones the largest number of bits, of 64, in which the perceptual hash of the first picture differs from
    /// another's; else 0.
    pub distance: u32,
    /// Their names as [`Source::name`] spells them, in the order of the source; at least two.
    pub paths: Vec<String>,
}

impl DuplicateGroup {
    /// The groups that pairs of pictures of `source` grow together to.
    pub fn of_pairs(
        source: &dyn Source,
        kind: Likeness,
        pairs: impl IntoIterator<Item = (usize, usize)>,
    ) -> Vec<DuplicateGroup> {
        let mut sets = Sets::new(source.len());
        let number = |i: usize| u32::try_from(i).unwrap_or(u32::MAX);
        pairs.into_iter().for_each(|(a, b)| sets.join(number(a), number(b)));
        let name = |i: u32| source.name(i as usize).into_owned();
        let group =
            |members: Vec<u32>| DuplicateGroup { kind, distance: 0, paths: members.into_iter().map(name).collect() };
        sets.groups().into_iter().map(group).collect()
    }
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

/// Joins what looks alike: hashes that differ in at most `near_bits` bits, verified on the small pictures. Returns how
/// many pairs of pictures were compared.
///
/// Two hashes that differ in fewer than `2 · BANDS` bits differ in at most one bit of some band, so that every pair is
/// found among the pictures with the same band or a neighbour of it; other pairs are not looked at.
///
/// The pictures with the same band are kept in chains, each of which is in one set. A picture passes over the chain of its
/// own set, over the rest of a chain that it was joined with, and over every chain that is too far away: further from its
/// first picture than the chain is wide and two pictures may be apart together. What is passed over could join nothing, so
/// the sets are those of all pairs.
///
/// # Cost
/// Where pictures are different, some 70 buckets of `n / 2^16` are looked through for each. Where many are alike they
/// are one chain, and each costs a few comparisons. The square of their number is left where many pictures share a band
/// and hardly any are alike: one comparison of two hashes each, or of two small pictures where the hashes are near.
///
/// # Source
/// Norouzi, Punjani, Fleet, *Fast Search in Hamming Space with Multi-Index Hashing*, CVPR 2012.
/// <https://arxiv.org/abs/1307.2982>
fn join_near(looks: &[(u32, Look)], near_bits: u32, sets: &mut Sets) -> u64 {
    let hashes = looks.iter().map(|(_, look)| look.hash()).collect();
    let mut search = Search { looks, hashes, near_bits: near_bits.min(MAX_NEAR_BITS), n_compared: 0 };
    for band in 0..BANDS {
        let mut chains = Chains::new(looks.len());
        for i in 0..u32::try_from(looks.len()).unwrap_or(u32::MAX) {
            let own = band_of(search.hashes[i as usize], band);
            for bit in 0..BAND_BITS {
                search.join_with_bucket(i, band, own ^ 1 << bit, &mut chains, sets);
            }
            match search.join_with_bucket(i, band, own, &mut chains, sets) {
                Some(chain) => chains.push(chain, i, looks),
                None => chains.begin(own, i),
            }
        }
    }
    search.n_compared
}

/// What a search for near pictures goes through.
struct Search<'a> {
    looks: &'a [(u32, Look)],
    hashes: Vec<u64>,
    near_bits: u32,
    n_compared: u64,
}

impl Search<'_> {
    /// Joins a picture with all that is like it in a bucket; returns the chain there that it belongs to, if there is one.
    fn join_with_bucket(
        &mut self,
        i: u32,
        band: u32,
        bucket: usize,
        chains: &mut Chains,
        sets: &mut Sets,
    ) -> Option<u32> {
        let mut joined = None;
        let (mut before, mut next) = (NONE, chains.first[bucket]);
        while next != NONE {
            let chain = next;
            next = chains.next[chain as usize];
            let width = chains.width[chain as usize];
            if self.difference(i, chain).count_ones() > self.near_bits + width.bits {
                before = chain;
                continue;
            }
            let ((picture, look), (first, first_look)) = (&self.looks[i as usize], &self.looks[chain as usize]);
            if sets.first_of(*first) != sets.first_of(*picture) {
                let is_in_reach = look.can_agree(first_look, width);
                if !is_in_reach || !chains.members(chain).any(|other| self.is_like(i, other, band)) {
                    before = chain;
                    continue;
                }
                sets.join(*picture, *first);
            }
            if let Some(kept) = joined {
                chains.unlink(bucket, before, chain);
                chains.append(kept, chain, self.looks);
            } else {
                joined = Some(chain);
                before = chain;
            }
        }
        joined
    }

    /// Whether two pictures show the same, as far as that was not asked in an earlier band.
    fn is_like(&mut self, i: u32, other: u32, band: u32) -> bool {
        self.n_compared += 1;
        let difference = self.difference(i, other);
        let met_before = || (0..band).any(|earlier| band_of(difference, earlier).count_ones() <= 1);
        difference.count_ones() <= self.near_bits
            && !met_before()
            && self.looks[i as usize].1.agrees_with(&self.looks[other as usize].1)
    }

    fn difference(&self, i: u32, other: u32) -> u64 {
        self.hashes[i as usize] ^ self.hashes[other as usize]
    }
}

/// Bits of a band.
const BAND_BITS: u32 = u64::BITS / BANDS;

/// One band of a hash, the number of a bucket.
fn band_of(hash: u64, band: u32) -> usize {
    usize::from((hash >> (BAND_BITS * band)).to_le_bytes()[0])
        | usize::from((hash >> (BAND_BITS * band)).to_le_bytes()[1]) << 8
}

/// No picture and no chain.
const NONE: u32 = u32::MAX;

/// The pictures of every bucket, in chains of pictures of one set. A chain is called by its first picture.
struct Chains {
    /// The first chain of each bucket.
    first: Vec<u32>,
    /// The chain behind each in its bucket.
    next: Vec<u32>,
    /// The last picture of each chain. Neighbours in a set are often alike, so a search begins with it.
    last: Vec<u32>,
    /// The picture before each in its chain.
    before: Vec<u32>,
    /// How far any picture of each chain is from its first one, at most.
    width: Vec<Apart>,
}

impl Chains {
    fn new(n: usize) -> Self {
        let none = || vec![NONE; n];
        Self {
            first: vec![NONE; 1 << BAND_BITS],
            next: none(),
            last: none(),
            before: none(),
            width: vec![Apart::default(); n],
        }
    }

    /// The pictures of a chain, the last one first.
    fn members(&self, chain: u32) -> impl Iterator<Item = u32> {
        let known = |i: u32| (i != NONE).then_some(i);
        std::iter::successors(Some(self.last[chain as usize]), move |&i| known(self.before[i as usize]))
    }

    /// Puts a picture into a chain of its own.
    fn begin(&mut self, bucket: usize, i: u32) {
        self.last[i as usize] = i;
        self.next[i as usize] = std::mem::replace(&mut self.first[bucket], i);
    }

    /// Adds a picture to a chain.
    fn push(&mut self, chain: u32, i: u32, looks: &[(u32, Look)]) {
        self.last[i as usize] = i;
        self.append(chain, i, looks);
    }

    /// Adds all of another chain, which is in no bucket, to a chain.
    fn append(&mut self, chain: u32, other: u32, looks: &[(u32, Look)]) {
        let apart = looks[chain as usize].1.apart(&looks[other as usize].1);
        let (own, others) = (self.width[chain as usize], self.width[other as usize]);
        self.width[chain as usize] = Apart {
            bits: own.bits.max(apart.bits + others.bits),
            chroma: own.chroma.max(apart.chroma + others.chroma),
            angle: own.angle.max(apart.angle + others.angle),
        };
        self.before[other as usize] = self.last[chain as usize];
        self.last[chain as usize] = self.last[other as usize];
    }

    /// Takes a chain out of its bucket, where it stands behind `before`.
    fn unlink(&mut self, bucket: usize, before: u32, chain: u32) {
        let next = self.next[chain as usize];
        match before {
            NONE => self.first[bucket] = next,
            before => self.next[before as usize] = next,
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

    /// Numbers by the same rule every time.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, n: u64) -> u64 {
            (self.next() >> 16) % n
        }
    }

    /// Looks around `n_hashes` hashes, in each of which up to `n_flipped` bits are changed, of `n_kinds` that do not agree.
    /// Of one kind some agree and others only with what lies between them.
    fn looks(n: u32, n_hashes: u64, n_flipped: u64, n_kinds: u64, seed: u64) -> Vec<(u32, Look)> {
        let mut numbers = Numbers(seed);
        let bases: Vec<u64> = (0..n_hashes).map(|_| numbers.next()).collect();
        let mut look = || {
            let mut hash = bases[usize::try_from(numbers.below(n_hashes)).unwrap_or(0)];
            (0..n_flipped).for_each(|_| hash ^= 1 << numbers.below(64));
            let kind = numbers.below(n_kinds).to_le_bytes()[0];
            Look::made_up(hash, kind, usize::from(numbers.below(24).to_le_bytes()[0]))
        };
        // Not every picture has a look.
        (0..n).map(|i| (2 * i, look())).collect()
    }

    fn sets_of_all_pairs(looks: &[(u32, Look)], near_bits: u32) -> Vec<Vec<u32>> {
        let mut sets = Sets::new(2 * looks.len());
        for (i, (a, look)) in looks.iter().enumerate() {
            for (b, other) in &looks[..i] {
                if look.distance(other) <= near_bits && look.agrees_with(other) {
                    sets.join(*a, *b);
                }
            }
        }
        sets.groups()
    }

    #[test]
    fn the_search_finds_what_all_pairs_show() {
        for (n, n_hashes, n_flipped, n_kinds) in [
            (300, 1, 0, 1),
            (300, 1, 0, 40),
            (300, 1, 4, 3),
            (300, 4, 6, 2),
            (300, 40, 3, 3),
            (300, 300, 0, 1),
            (40, 1, 9, 1),
        ] {
            for seed in 1..4 {
                let looks = looks(n, n_hashes, n_flipped, n_kinds, seed);
                for near_bits in [0, 3, MAX_NEAR_BITS] {
                    let mut sets = Sets::new(2 * looks.len());
                    join_near(&looks, near_bits, &mut sets);
                    let case =
                        format!("{n_hashes} hashes, {n_flipped} flips, {n_kinds} kinds, {near_bits} bits, {seed}");
                    assert_eq!(sets.groups(), sets_of_all_pairs(&looks, near_bits), "{case}");
                }
            }
        }
    }

    /// All pairs are fifty million, and each would meet in several buckets.
    #[test]
    fn what_looks_alike_is_not_compared_pair_by_pair() {
        for (what, n_hashes, n_flipped, n_kinds) in [
            ("one hash", 1, 0, 1),
            ("a few bits apart", 1, 3, 1),
            ("twenty scenes", 20, 2, 1),
            ("one shape in forty colours", 1, 2, 40),
        ] {
            let looks = looks(10_000, n_hashes, n_flipped, n_kinds, 7);
            let n_compared = join_near(&looks, NEAR_BITS, &mut Sets::new(2 * looks.len()));
            assert!(n_compared < 100 * looks.len() as u64, "{what}: {n_compared} pairs");
        }
    }
}

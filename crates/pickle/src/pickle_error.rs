//! Why a pickle is not read.

/// Why a pickle is not read.
///
/// [`read_pickle`](crate::read_pickle) returns all but `Entry`; `Entry`, and `TooMuch` of something else than
/// instructions, are for those who look for something in the values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// The pickle wants to import something that is not needed to describe its data.
    #[error(
        "the pickle wants to import {name} at byte {at}, which is refused: it could run anything, and nothing was run; {rule}"
    )]
    Forbidden {
        /// Module and name.
        name: String,
        /// Where the instruction stands.
        at: usize,
        /// What is read instead: [`Dialect::RULE`](crate::Dialect::RULE).
        rule: &'static str,
    },
    /// An instruction that is unknown or that such files have no need of.
    #[error("the pickle has the instruction {code:#04x} at byte {at}, which is refused: {rule}")]
    Instruction {
        /// The byte of the instruction.
        code: u8,
        /// Where it stands.
        at: usize,
        /// What is read instead: [`Dialect::RULE`](crate::Dialect::RULE).
        rule: &'static str,
    },
    /// The pickle ends within an instruction, or before the last one.
    #[error("the pickle is truncated: the instruction at byte {at} does not end within its {bytes} bytes")]
    Truncated {
        /// Where the instruction stands, or should.
        at: usize,
        /// Length of the pickle.
        bytes: usize,
    },
    /// An instruction finds something else than it needs.
    #[error("the pickle is corrupt at byte {at}, instruction {code:#04x}: {reason}")]
    Corrupt {
        /// The byte of the instruction.
        code: u8,
        /// Where it stands.
        at: usize,
        /// What it needs, or what it found.
        reason: &'static str,
    },
    /// More of something than any known file has.
    #[error("the pickle has more than {limit} {what}, which no known file needs")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much is read.
        limit: usize,
    },
    /// The data lacks an entry, or the entry is of another kind.
    #[error("the pickle has no entry `{key}` that is {expected}")]
    Entry {
        /// The key that was looked for.
        key: &'static str,
        /// What should be there.
        expected: &'static str,
    },
}

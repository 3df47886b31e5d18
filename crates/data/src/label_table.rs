//! Labels from a table with a column of paths and one of labels, in the form of RFC 4180.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::escape_path;
use crate::escaped_path::sort_key;
use crate::file_table::path_of;
use crate::folder_listing::has_picture_extension;

/// Why a table of labels or a list of files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The file cannot be read.
    #[error("{} cannot be read: {reason}", escape_path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// A row does not follow the rules.
    #[error("{}, line {line}: {problem}", escape_path(path))]
    Row {
        /// The file.
        path: PathBuf,
        /// Where the row begins, from 1.
        line: usize,
        /// What is wrong with it.
        problem: RowProblem,
    },
    /// There is no row.
    #[error("{} names no file", escape_path(path))]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// It has too many or too few columns.
    #[error(
        "expected {expected} columns, got {got}; a table with others besides path and label begins with their names"
    )]
    Columns {
        /// How many the first row has.
        expected: usize,
        /// How many this one has.
        got: usize,
    },
    /// Something else than commas stands between the columns.
    #[error("expected commas between the columns, got {got}")]
    Separator {
        /// What is there.
        got: &'static str,
    },
    /// Every character takes two bytes.
    #[error("the table is UTF-16; save it as UTF-8")]
    Utf16,
    /// The path is missing.
    #[error("the path is empty")]
    NoPath,
    /// The label is missing.
    #[error("the label is empty")]
    NoLabel,
    /// A label is a name, and names are text.
    #[error("the label is no UTF-8 text")]
    LabelNotText,
    /// A quoted field goes on to the end of the file.
    #[error("a quoted field does not end")]
    OpenQuote,
    /// Something follows a closing quote, or a quote stands in the middle of a field.
    #[error("a quote must enclose a whole field; inside one it is written twice")]
    StrayQuote,
    /// The file was given another label before.
    #[error("it labels {path} as `{second}`, after `{first}` in line {first_line}")]
    TwoLabels {
        /// The file.
        path: String,
        /// The label in the earlier row.
        first: String,
        /// Where that row is.
        first_line: usize,
        /// The label here.
        second: String,
    },
}

/// What the column of paths is called in the tables people have.
const PATH_NAMES: [&str; 6] = ["path", "file", "filename", "file_name", "image", "image_path"];

/// What the column of labels is called in the tables people have.
const LABEL_NAMES: [&str; 4] = ["label", "class", "category", "target"];

/// Which class every file has.
#[derive(Debug)]
pub(crate) struct LabelTable {
    /// The names of the classes, byte-wise sorted.
    pub(crate) classes: Vec<String>,
    /// The rows in their order.
    pub(crate) rows: Vec<LabelRow>,
    /// Row numbers by the bytes that paths are compared by.
    by_path: HashMap<Vec<u8>, usize>,
    /// The first row, where it was taken for names of columns without having any that is known.
    pub(crate) unknown_names: Option<String>,
}

#[derive(Debug)]
pub(crate) struct LabelRow {
    pub(crate) path: PathBuf,
    pub(crate) label: u32,
}

impl LabelTable {
    /// Reads a table.
    ///
    /// # Errors
    /// [`TableError`].
    pub(crate) fn read(file: &Path) -> Result<Self, TableError> {
        let bytes = fs::read(file).map_err(|reason| TableError::Read { path: file.to_owned(), reason })?;
        Self::parse(&bytes).map_err(|error| match error {
            Some((line, problem)) => TableError::Row { path: file.to_owned(), line, problem },
            None => TableError::Empty { path: file.to_owned() },
        })
    }

    /// The error is a line and what is wrong there, or nothing when there is no row.
    fn parse(bytes: &[u8]) -> Result<Self, Option<(usize, RowProblem)>> {
        if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
            return Err(Some((1, RowProblem::Utf16)));
        }
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let mut rows = rows_of(bytes).map_err(Some)?;
        // Where the columns are: by their names if the first row has them, else the first two and no more.
        let column = |names: &[&str]| {
            let (_, fields) = rows.first()?;
            let is_name = |field: &[u8]| names.iter().any(|name| field.eq_ignore_ascii_case(name.as_bytes()));
            fields.iter().position(|field| is_name(field.trim_ascii()))
        };
        let (path_column, label_column, n_columns) = match (column(&PATH_NAMES), column(&LABEL_NAMES)) {
            (Some(path), Some(label)) => (path, label, rows.remove(0).1.len()),
            _ => (0, 1, 2),
        };
        // A first row with other names would make a class of the second name.
        let is_picture = |(_, fields): &(usize, Fields)| has_picture_extension(&path_of(&fields[0]));
        let is_named = n_columns == 2
            && matches!(&rows[..], [first, second, ..] if first.1.len() == 2 && !is_picture(first) && is_picture(second));
        let unknown_names = is_named.then(|| String::from_utf8_lossy(&rows.remove(0).1.join(&b',')).into_owned());

        let mut named: Vec<(PathBuf, String, usize)> = Vec::with_capacity(rows.len());
        let mut by_path = HashMap::with_capacity(rows.len());
        for (line, fields) in rows {
            let fail = |problem| Err(Some((line, problem)));
            if fields.len() != n_columns {
                let separators = [(b';', "semicolons"), (b'\t', "tabs")];
                let found = separators.iter().find(|(byte, _)| fields.len() == 1 && fields[0].contains(byte));
                if let Some((_, got)) = found {
                    return fail(RowProblem::Separator { got });
                }
                return fail(RowProblem::Columns { expected: n_columns, got: fields.len() });
            }
            let Ok(label) = String::from_utf8(fields[label_column].trim_ascii().to_vec()) else {
                return fail(RowProblem::LabelNotText);
            };
            let path = path_of(&fields[path_column]);
            if path.as_os_str().is_empty() {
                return fail(RowProblem::NoPath);
            }
            if label.is_empty() {
                return fail(RowProblem::NoLabel);
            }
            match by_path.get(&key_of(&path)).map(|&row: &usize| &named[row]) {
                Some((_, first, _)) if *first == label => {}
                Some((_, first, first_line)) => {
                    let (first, first_line, path) = (first.clone(), *first_line, escape_path(&path));
                    return fail(RowProblem::TwoLabels { path, first, first_line, second: label });
                }
                None => {
                    by_path.insert(key_of(&path), named.len());
                    named.push((path, label, line));
                }
            }
        }
        if named.is_empty() {
            return Err(None);
        }
        let numbers: BTreeMap<&str, u32> = named.iter().map(|(_, label, _)| (label.as_str(), 0)).collect();
        let numbers: BTreeMap<&str, u32> = numbers.into_keys().zip(0..).collect();
        let classes = numbers.keys().map(|&name| name.to_owned()).collect();
        let rows = named.iter().map(|(path, label, _)| LabelRow { path: path.clone(), label: numbers[label.as_str()] });
        Ok(Self { classes, rows: rows.collect(), by_path, unknown_names })
    }

    /// The row of a file that is called `relative` below a root, whose own [`spellings`] these are.
    pub(crate) fn row_of(&self, spellings: &[PathBuf], relative: &Path) -> Option<usize> {
        let below = self.by_path.get(&key_of(relative));
        let mut whole = spellings.iter().filter_map(|root| self.by_path.get(&key_of(&root.join(relative))));
        below.or_else(|| whole.next()).copied()
    }
}

/// What a row of the table `file` may call `root`: by its whole path, as it is given or without links, or by the path
/// from the folder of the table. The folder that the program was started in has no say: a run is resumed from anywhere.
pub(crate) fn spellings(root: &Path, file: &Path) -> Vec<PathBuf> {
    // A table that is a link has its paths where the link is.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let canonical = fs::canonicalize(root).ok();
    let from_table = canonical.as_deref().zip(fs::canonicalize(folder).ok()).map(|(root, folder)| from(&folder, root));
    std::path::absolute(root).ok().into_iter().chain(canonical.clone()).chain(from_table).collect()
}

/// The way from `folder` to `to`, both of them whole paths without links.
fn from(folder: &Path, to: &Path) -> PathBuf {
    let shared = folder.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

/// What paths are compared by: `./a//b` and `a/b` are the same.
pub(crate) fn key_of(path: &Path) -> Vec<u8> {
    let plain: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    sort_key(&plain)
}

type Fields = Vec<Vec<u8>>;

/// The rows that are not blank, each with the line where it begins.
fn rows_of(bytes: &[u8]) -> Result<Vec<(usize, Fields)>, (usize, RowProblem)> {
    let mut rows = Vec::new();
    let mut rest = bytes;
    let mut line = 1;
    while !rest.is_empty() {
        let begun = line;
        let mut fields = Vec::new();
        loop {
            let (field, end) = field_of(rest).map_err(|problem| (begun, problem))?;
            line += rest[..end].iter().filter(|&&byte| byte == b'\n').count();
            rest = &rest[end..];
            fields.push(field);
            match rest {
                [b',', after @ ..] => rest = after,
                [b'\r', b'\n', after @ ..] | [b'\n', after @ ..] => {
                    rest = after;
                    line += 1;
                    break;
                }
                _ => break,
            }
        }
        if fields != [Vec::<u8>::new()] {
            rows.push((begun, fields));
        }
    }
    Ok(rows)
}

/// The field that `rest` begins with, and where it ends.
fn field_of(rest: &[u8]) -> Result<(Vec<u8>, usize), RowProblem> {
    let ends = |at: usize| {
        matches!(rest.get(at..), Some([] | [b',' | b'\n', ..] | [b'\r', b'\n', ..] | [b'\r'])) || at >= rest.len()
    };
    if rest.first() != Some(&b'"') {
        let end = (0..).find(|&at| ends(at)).unwrap_or(rest.len());
        return if rest[..end].contains(&b'"') {
            Err(RowProblem::StrayQuote)
        } else {
            // A lone carriage return at the end of the file ends the row as well.
            Ok((rest[..end].to_vec(), if rest.get(end..) == Some(b"\r") { rest.len() } else { end }))
        };
    }
    let mut field = Vec::new();
    let mut at = 1;
    loop {
        match rest.get(at..) {
            Some([b'"', b'"', ..]) => {
                field.push(b'"');
                at += 2;
            }
            Some([b'"', ..]) if ends(at + 1) => return Ok((field, at + 1)),
            Some([b'"', ..]) => return Err(RowProblem::StrayQuote),
            Some([byte, ..]) => {
                field.push(*byte);
                at += 1;
            }
            _ => return Err(RowProblem::OpenQuote),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let table = LabelTable::parse(text.as_bytes()).expect("a table");
        let found: Vec<(&str, &str)> = (table.rows.iter())
            .map(|row| (row.path.to_str().expect("UTF-8"), table.classes[row.label as usize].as_str()))
            .collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn rows_with_and_without_a_header() {
        let two = [("a.png", "cat"), ("b.png", "ant")];
        check("a.png,cat\nb.png,ant\n", &two);
        check("a.png,cat\r\n\r\nb.png,ant", &two);
        check("path,label\na.png,cat\nb.png,ant\n", &two);
        check("class,split,file_name\ncat,1,a.png\nant,1,b.png\n", &two);
        check("\u{feff}Label,width, Path \ncat,9,a.png\nant,10,b.png\n", &two);
        check("a.png,cat\n./a.png,cat\nb.png,ant\r", &two);
        check("\"a,\"\"b\"\".png\",\"two\nlines\"\nc.png, x \n", &[("a,\"b\".png", "two\nlines"), ("c.png", "x")]);
    }

    #[test]
    fn names_of_columns_make_no_class() {
        let table = LabelTable::parse(b"image name,breed\na.png,cat\nb.png,ant\n").expect("a table");
        assert_eq!(table.unknown_names.as_deref(), Some("image name,breed"));
        assert_eq!((table.classes.len(), table.rows.len()), (2, 2));
        // Files without a known ending, and a table of one row, leave nothing to tell names by.
        for text in ["one,cat\ntwo,ant\n", "one,cat\n", "a.png,cat\nb,ant\n"] {
            let table = LabelTable::parse(text.as_bytes()).expect("a table");
            assert_eq!(table.unknown_names, None, "{text:?}");
        }
    }

    #[test]
    fn classes_are_sorted_by_their_bytes() {
        let table = LabelTable::parse(b"a,10\nb,2\nc,B\nd,a\ne,2").expect("a table");
        assert_eq!(table.classes, ["10", "2", "B", "a"]);
        assert_eq!(table.rows.iter().map(|row| row.label).collect::<Vec<_>>(), [0, 1, 2, 3, 1]);
    }

    #[test]
    fn mistakes_name_their_line() {
        use RowProblem as P;
        let columns = |got| P::Columns { expected: 2, got };
        for (text, line, problem) in [
            ("a,b\nc\n", 2, columns(1)),
            ("a,b\n\n\"x\ny\",b\nc,d,e", 5, columns(3)),
            ("path,label,extra\na,b\n", 2, P::Columns { expected: 3, got: 2 }),
            ("id,breed,age\na.png,b,3\n", 1, columns(3)),
            ("path;label\na.png;b\n", 1, P::Separator { got: "semicolons" }),
            ("a.png\tb\n", 1, P::Separator { got: "tabs" }),
            ("\u{feff}a\n", 1, columns(1)),
            ("a,b\n,c\n", 2, P::NoPath),
            ("a,\n", 1, P::NoLabel),
            ("a,b\n\"c,d\n", 2, P::OpenQuote),
            ("a,b\n\"c\"d,e\n", 2, P::StrayQuote),
            ("a,b\nc\"d,e\n", 2, P::StrayQuote),
            (
                "a,b\nc,d\na,e\n",
                3,
                P::TwoLabels { path: "a".to_owned(), first: "b".to_owned(), first_line: 1, second: "e".to_owned() },
            ),
        ] {
            assert_eq!(LabelTable::parse(text.as_bytes()).expect_err(text), Some((line, problem)), "{text:?}");
        }
        assert_eq!(LabelTable::parse(b"a,\xFF").expect_err("no text"), Some((1, P::LabelNotText)));
        assert_eq!(LabelTable::parse(b"\xFF\xFEa\0,\0b\0").expect_err("UTF-16"), Some((1, P::Utf16)));
        assert_eq!(LabelTable::parse(b"path,label\n").expect_err("nothing"), None);
        assert_eq!(LabelTable::parse(b"").expect_err("nothing"), None);
    }
}

//! What a set is called, where it lies, what it must hash to and what becomes of it.

use serde::{Deserialize, Serialize};

use crate::checksum::is_sha256;
use crate::unpack::{UnpackLimits, relative_path};

/// A published set, as the files in `datasets/` describe one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The name to ask for: lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// One line: what the pictures are.
    pub title: String,
    /// The page of the makers.
    pub homepage: String,
    /// Licence or terms of use, as the makers state them or fail to.
    pub licence: String,
    /// What to cite.
    pub citation: String,
    /// The file to download.
    pub archive: ArchiveConfig,
    /// What the archive holds.
    pub layout: LayoutConfig,
}

/// A gzipped tar file and how to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// Where it lies, the makers' own address first; a later one is asked when an earlier one fails for good.
    pub urls: Vec<String>,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// What may come out of it.
    pub unpacked: UnpackLimits,
}

/// Which kind of pictures, and where among the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutConfig {
    /// Who can read it.
    pub kind: Layout,
    /// The folder of the training pictures below the set's own; empty for the set's own.
    pub train: String,
    /// The folder of the test pictures, where it is another one.
    pub test: Option<String>,
}

/// The kinds of files that twoview reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layout {
    /// Picture files in one folder for each class.
    ClassFolders,
    /// CIFAR-10 or CIFAR-100 as binary batches.
    CifarBinary,
    /// STL-10 as binary planes.
    StlBinary,
}

/// Why a recipe is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// A value is not what its key asks for.
    #[error("recipe `{name}`: {key} must be {expected}, got `{got}`")]
    Value {
        /// The recipe's name.
        name: String,
        /// The key, dotted.
        key: &'static str,
        /// What would do.
        expected: &'static str,
        /// What stands there.
        got: String,
    },
}

impl Recipe {
    /// Checks everything that can be known without a network.
    ///
    /// # Errors
    /// [`RecipeError`] with the key, what would do and what stands there.
    pub fn check(&self) -> Result<(), RecipeError> {
        let wrong = |key, expected, got: &str| {
            Err(RecipeError::Value { name: self.name.clone(), key, expected, got: got.to_owned() })
        };
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if self.name.is_empty() || !self.name.chars().all(named) {
            return wrong("name", "lower-case letters, digits, `-` and `_`", &self.name);
        }
        let archive = &self.archive;
        if archive.urls.is_empty() {
            return wrong("archive.urls", "one address or more", "[]");
        }
        for url in &archive.urls {
            if !(url.starts_with("https://") || url.starts_with("http://")) || file_name(url).is_none() {
                return wrong("archive.urls", "https:// addresses that end in a plain file name", url);
            }
        }
        if !is_sha256(&archive.sha256) {
            return wrong("archive.sha256", "64 lower-case hexadecimal digits", &archive.sha256);
        }
        if archive.bytes == 0 {
            return wrong("archive.bytes", "the length of the archive", "0");
        }
        let folders = [("layout.train", Some(&self.layout.train)), ("layout.test", self.layout.test.as_ref())];
        for (key, folder) in folders {
            if folder.is_some_and(|folder| !folder.is_empty() && relative_path(folder.as_bytes()).is_err()) {
                return wrong(key, "a folder below the set's own", folder.map_or("", String::as_str));
            }
        }
        Ok(())
    }
}

/// The file name at the end of an address, which names the download on the disk.
pub(crate) fn file_name(url: &str) -> Option<&str> {
    let name = url.rsplit('/').next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!name.is_empty() && !name.starts_with('.') && name.chars().all(plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Recipe {
        Recipe {
            name: "set".to_owned(),
            title: "pictures".to_owned(),
            homepage: "https://example.org".to_owned(),
            licence: "any use".to_owned(),
            citation: "somebody".to_owned(),
            archive: ArchiveConfig {
                urls: vec!["https://example.org/set.tar.gz".to_owned()],
                sha256: "0".repeat(64),
                bytes: 1,
                unpacked: UnpackLimits { max_files: 1, max_bytes: 1 },
            },
            layout: LayoutConfig { kind: Layout::ClassFolders, train: "set/train".to_owned(), test: None },
        }
    }

    #[track_caller]
    fn check_refused(key: &str, spoil: impl FnOnce(&mut Recipe)) {
        let mut recipe = good();
        spoil(&mut recipe);
        let error = recipe.check().expect_err("a bad value");
        assert!(error.to_string().contains(key), "{error}");
    }

    #[test]
    fn every_value_is_checked() {
        assert_eq!(good().check(), Ok(()));
        check_refused("name", |recipe| recipe.name = "../set".to_owned());
        check_refused("archive.urls", |recipe| recipe.archive.urls.clear());
        check_refused("archive.urls", |recipe| recipe.archive.urls.push("ftp://example.org/a".to_owned()));
        check_refused("archive.urls", |recipe| recipe.archive.urls.push("https://example.org/".to_owned()));
        check_refused("archive.urls", |recipe| recipe.archive.urls.push("https://example.org/..".to_owned()));
        check_refused("archive.sha256", |recipe| recipe.archive.sha256 = "c58f30108f718f92721af3b95e74349a".to_owned());
        check_refused("archive.bytes", |recipe| recipe.archive.bytes = 0);
        check_refused("layout.train", |recipe| recipe.layout.train = "/etc".to_owned());
        check_refused("layout.test", |recipe| recipe.layout.test = Some("a/../..".to_owned()));
    }
}

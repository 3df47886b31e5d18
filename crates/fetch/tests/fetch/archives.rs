//! Small archives, good and malicious, and recipes for them.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};
use twoview_fetch::{ArchiveConfig, Layout, LayoutConfig, Recipe, UnpackLimits};

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// A member with exactly this name, which the tar crate itself would refuse to write.
pub(crate) fn member(name: &str, kind: EntryType, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Members and the end of an archive, gzipped.
pub(crate) fn archive_of(members: &[Vec<u8>]) -> Vec<u8> {
    gzip(&[members.concat(), vec![0; 1024]].concat())
}

/// A set with two folders and so many bytes of noise, which does not compress.
pub(crate) fn good_archive(noise: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let bytes: Vec<u8> = (0..noise)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    let mut builder = Builder::new(Vec::new());
    for (name, data) in [("set/train/a/noise.bin", bytes.as_slice()), ("set/test/a/one.txt", b"one\n")] {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, data).expect("memory takes it");
    }
    // A name that needs a header of its own.
    let long = format!("set/test/a/{}.txt", "long".repeat(40));
    let mut header = Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    builder.append_data(&mut header, &long, &b"two\n"[..]).expect("memory takes it");
    gzip(&builder.into_inner().expect("memory takes it"))
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn recipe_for(archive: &[u8], urls: &[String]) -> Recipe {
    Recipe {
        name: "set".to_owned(),
        title: "two folders of noise".to_owned(),
        homepage: "https://example.org".to_owned(),
        licence: "none needed".to_owned(),
        citation: "this test".to_owned(),
        archive: ArchiveConfig {
            urls: urls.to_vec(),
            sha256: sha256(archive),
            bytes: archive.len() as u64,
            unpacked: UnpackLimits { max_files: 20, max_bytes: 10_000_000 },
        },
        layout: LayoutConfig {
            kind: Layout::ClassFolders,
            train: "set/train".to_owned(),
            test: Some("set/test".to_owned()),
        },
    }
}

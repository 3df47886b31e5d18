//! Archives that try to get out of their folder, or to fill the disk.

use std::fs;
use std::path::Path;

use tar::EntryType;
use twoview_fetch::{UnpackError, UnpackLimits, Unpacked, unpack_tar_gz};

use crate::archives::{archive_of, gzip, member};

const LIMITS: UnpackLimits = UnpackLimits { max_files: 4, max_bytes: 10_000 };

/// Unpacks into an empty folder and sees that nothing appeared beside it.
fn unpack(bytes: &[u8]) -> Result<Unpacked, UnpackError> {
    let root = tempfile::tempdir().expect("a temporary folder");
    let archive = root.path().join("archive");
    fs::write(&archive, bytes).expect("written");
    let result = unpack_tar_gz(&archive, &root.path().join("files"), LIMITS, &mut |_, _| true);
    let beside = fs::read_dir(root.path()).expect("listed").count();
    assert_eq!(beside, 2, "only the archive and the folder");
    result
}

#[track_caller]
fn check_refused(bytes: &[u8], words: &str) {
    let error = unpack(bytes).expect_err(words);
    let said = match &error {
        UnpackError::Corrupt { reason, .. } => format!("{error}: {reason}"),
        _ => error.to_string(),
    };
    assert!(said.contains(words), "expected `{words}` in: {said}");
}

fn file(name: &str) -> Vec<u8> {
    member(name, EntryType::Regular, "", b"data")
}

fn pax(record: &str) -> Vec<u8> {
    // A record begins with its own length, these digits included.
    let length = (record.len()..).find(|n| n.to_string().len() + 2 + record.len() == *n).expect("a number");
    member("pax", EntryType::XHeader, "", format!("{length} {record}\n").as_bytes())
}

#[test]
fn plain_members_come_out() {
    let members = [member("./a/", EntryType::Directory, "", b""), file("./a//b.txt"), file("c")];
    let unpacked = unpack(&archive_of(&members)).expect("a good archive");
    let names: Vec<&str> = unpacked.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names, unpacked.bytes), (vec!["a/b.txt", "c"], 8));
    let renamed = [pax("path=from/pax.txt"), file("other")];
    assert_eq!(unpack(&archive_of(&renamed)).expect("a good archive").files[0].0, "from/pax.txt");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["../out", "a/../../out", "/out", "//out", "a\\..\\out", "C:out", "a\nb", ".."] {
        check_refused(&archive_of(&[file(name)]), "a member called");
        check_refused(&archive_of(&[member(name, EntryType::Directory, "", b"")]), "a member called");
        if !name.contains('\n') {
            check_refused(&archive_of(&[pax(&format!("path={name}")), file("harmless")]), "a member called");
        }
        let long = member("././@LongLink", EntryType::GNULongName, "", format!("{name}\0").as_bytes());
        check_refused(&archive_of(&[long, file("harmless")]), "a member called");
    }
    check_refused(&archive_of(&[file(".")]), "a name of its own");
    check_refused(&archive_of(&[file(&"d/".repeat(40))]), "32 folders");
    check_refused(&archive_of(&[pax(&format!("path={}", "n".repeat(2000))), file("x")]), "1024");
}

#[test]
fn links_and_devices_are_refused() {
    let escape = member("link", EntryType::Symlink, "..", b"");
    check_refused(&archive_of(&[escape, file("link/out")]), "symbolic link");
    check_refused(&archive_of(&[member("hard", EntryType::Link, "/etc/passwd", b"")]), "hard link");
    for (kind, words) in [
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a pipe"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::Continuous, "of type '7'"),
        (EntryType::new(b'Z'), "of type 'Z'"),
    ] {
        check_refused(&archive_of(&[member("thing", kind, "", b"")]), words);
    }
}

#[test]
fn claims_are_held_against_the_limits_before_they_are_read() {
    let mut huge = tar::Header::new_gnu();
    huge.as_old_mut().name[..4].copy_from_slice(b"huge");
    huge.set_entry_type(EntryType::Regular);
    huge.set_size(u64::MAX / 2);
    huge.set_cksum();
    check_refused(&gzip(huge.as_bytes()), "more than 10000 bytes");
    huge.set_entry_type(EntryType::GNULongName);
    huge.set_cksum();
    check_refused(&gzip(huge.as_bytes()), "the limit is 65536");
    huge.set_entry_type(EntryType::XGlobalHeader);
    huge.set_cksum();
    check_refused(&gzip(huge.as_bytes()), "the limit is 65536");

    let big = |name| member(name, EntryType::Regular, "", &[0; 6000]);
    check_refused(&archive_of(&[big("a"), big("b")]), "`b` would exceed it");
    let five: Vec<_> = ["a", "b", "c", "d", "e"].map(file).into();
    check_refused(&archive_of(&five), "more than 4 files");
    // Headers that only describe are counted too: a megabyte of them is 4 KiB of gzip.
    check_refused(&archive_of(&vec![pax("comment=x"); 1000]), "more than 4 files");
    check_refused(&archive_of(&vec![member("d", EntryType::Directory, "", b""); 1000]), "more than 4 files");
    check_refused(&archive_of(&[pax("size=0"), file("x")]), "a size of its own");
}

#[test]
fn a_member_is_written_once() {
    check_refused(&archive_of(&[file("a"), file("./a")]), "`a` twice");
    check_refused(&archive_of(&[file("a"), file("a/b")]), "twice");
    check_refused(&archive_of(&[file("a/b"), file("a")]), "`a` twice");
    check_refused(&archive_of(&[file("a"), member("a", EntryType::Directory, "", b"")]), "`a` twice");
}

#[test]
fn damaged_archives_are_errors_wherever_they_end() {
    check_refused(b"", "corrupt after 0 files");
    check_refused(b"plain text, no archive", "corrupt after 0 files");
    check_refused(&gzip(&[b'x'; 2000]), "corrupt after 0 files");
    let whole = archive_of(&[file("a"), member("b", EntryType::Regular, "", &[1; 5000])]);
    let mut refused = 0;
    for cut in 0..whole.len() {
        // Cut or flipped anywhere: an error or a folder, and never anything outside.
        refused += usize::from(unpack(&whole[..cut]).is_err());
        let mut flipped = whole.clone();
        flipped[cut] ^= 0x55;
        let _ = unpack(&flipped);
    }
    assert!(refused > whole.len() * 9 / 10, "{refused} of {}", whole.len());
}

#[test]
fn a_stop_ends_it() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let archive = root.path().join("archive");
    fs::write(&archive, archive_of(&[file("a"), file("b")])).expect("written");
    let dest = root.path().join("files");
    let stopped = unpack_tar_gz(&archive, &dest, LIMITS, &mut |files, _| files == 0);
    assert!(matches!(stopped, Err(UnpackError::Stopped)));
    // The folder must be new: nothing that lies there is written into.
    assert!(matches!(unpack_tar_gz(&archive, &dest, LIMITS, &mut |_, _| true), Err(UnpackError::Write { .. })));
    let missing = unpack_tar_gz(Path::new("missing"), &root.path().join("new"), LIMITS, &mut |_, _| true);
    assert!(matches!(missing, Err(UnpackError::Unreadable { .. })));
}

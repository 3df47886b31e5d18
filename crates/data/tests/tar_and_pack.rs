//! Tar shards, packs, and telling kinds of sets apart by their path.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up may panic")]

mod made_sets;

use std::fs;
use std::path::Path;

use made_sets::{
    OPTIONS, cifar10_binary, folder, gzip, idx, noise, open_folder, pack, picture, png, stl, tar_bytes, tar_shards,
    write,
};
use twoview_data::{
    DetectError, PackError, PackForm, PackSource, PatternsConfig, PatternsSource, ReadBuffers, Source, SourceKind,
    Split, TarError, TarSource, WritePackError, write_pack,
};
use twoview_pixels::{DecodeOptions, Image, decode, encode_png};

#[test]
fn samples_are_what_webdataset_says() {
    let root = tempfile::tempdir().unwrap();
    let (a, b, c) = (png(0, 0), png(1, 0), png(2, 0));
    let members: [(&str, &[u8]); 9] = [
        ("./x/0001.mask.png", &c),
        ("./x/0001.png", &a),
        ("./x/0001.json", b"{}"),
        ("./x/0001.cls", b"12\n"),
        ("x/._0002.png", b"apple double"),
        ("x/0002.left.JPEG", &b),
        ("x/0002.cls", b"3"),
        ("x/0003.txt", b"no picture"),
        ("x/0003.cls", b"3"),
    ];
    let file = write(&root.path().join("set.tar"), &tar_bytes(&members));
    let source = TarSource::open(&file, Split::Train, OPTIONS).unwrap();
    assert_eq!((source.len(), source.n_without_picture()), (2, 1));
    assert_eq!([source.name(0), source.name(1)], ["set.tar/x/0001.png", "set.tar/x/0002.left.JPEG"]);
    assert_eq!(source.path(1), file.join("x/0002.left.JPEG"));
    assert_eq!([source.image(0).unwrap(), source.image(1).unwrap()], [picture(0, 0), picture(1, 0)]);
    assert_eq!(source.classes(), ["03", "12"]);
    assert_eq!([source.label(0), source.label(1)], [Some(1), Some(0)]);
}

#[test]
fn shards_are_taken_by_folder_pattern_and_part() {
    let root = tempfile::tempdir().unwrap();
    tar_shards(root.path(), 0);
    let all = TarSource::open(root.path(), Split::Train, OPTIONS).unwrap();
    let pattern = TarSource::open(&root.path().join("train-{000..001}.tar"), Split::Train, OPTIONS).unwrap();
    assert_eq!((all.len(), pattern.len()), (6, 6));
    assert_eq!(all.fingerprint(), pattern.fingerprint());
    assert_eq!(all.name(4), pattern.name(4));
    write(&root.path().join("val-000.tar"), &tar_bytes(&[("a.png", &png(9, 0))]));
    assert_eq!(TarSource::open(root.path(), Split::Train, OPTIONS).unwrap().len(), 6);
    assert_eq!(TarSource::open(root.path(), Split::Test, OPTIONS).unwrap().len(), 1);
    // More shards of the same file name in different folders.
    for part in 0..2 {
        write(&root.path().join(format!("p{part}/set.tar")), &tar_bytes(&[("a.png", &png(part, 0))]));
    }
    let apart = TarSource::open(&root.path().join("p{0..1}/set.tar"), Split::Train, OPTIONS).unwrap();
    assert_eq!([apart.name(0), apart.name(1)], ["p0/set.tar/a.png", "p1/set.tar/a.png"]);
}

/// Long and other names in both formats of Python's `tarfile`, found where they are although they are no pictures.
#[test]
fn long_names_of_both_formats_are_read() {
    let root = tempfile::tempdir().unwrap();
    for format in ["gnu", "pax"] {
        // The same archive with the endings of pictures: names have the same length, headers new checksums.
        let bytes = fs::read(format!("tests/files/names_{format}.tar")).unwrap();
        let file = write(&root.path().join(format!("{format}.tar")), &bytes);
        let error = TarSource::open(&file, Split::Train, OPTIONS).unwrap_err();
        assert!(matches!(error, TarError::NoPictures { members: 3, .. }), "{error}");
    }
    let long = format!("{}/ü{}.png", "d".repeat(90), "n".repeat(150));
    let file = write(&root.path().join("long.tar"), &tar_bytes(&[(&long, &png(1, 0))]));
    let source = TarSource::open(&file, Split::Train, OPTIONS).unwrap();
    assert_eq!(source.name(0), format!("long.tar/{long}"));
    assert_eq!(source.image(0).unwrap(), picture(1, 0));

    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("path", long.as_bytes()), ("comment", b"=a=b\n")]).unwrap();
    let bytes = png(2, 0);
    let mut header = tar::Header::new_ustar();
    header.set_path("short.png").unwrap();
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    builder.append(&header, &bytes[..]).unwrap();
    let file = write(&root.path().join("pax.tar"), &builder.into_inner().unwrap());
    let source = TarSource::open(&file, Split::Train, OPTIONS).unwrap();
    assert_eq!((source.name(0).into_owned(), source.image(0).unwrap()), (format!("pax.tar/{long}"), picture(2, 0)));
}

#[test]
fn what_is_wrong_with_a_shard_is_said() {
    let root = tempfile::tempdir().unwrap();
    let picture = png(0, 0);
    let good = tar_bytes(&[("a.png", &picture)]);
    let check = |bytes: &[u8], want: &str| {
        let file = write(&root.path().join("set.tar"), bytes);
        let error = TarSource::open(&file, Split::Train, OPTIONS).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    };
    check(&gzip(&good), "is compressed");
    check(&good[..good.len() - 1024], "no end mark");
    check(&good[..700], "is truncated");
    check(&[b'x'; 2048], "it is no tar archive");
    for byte in [0x80, 0xff] {
        // The field of the checksum, as a number in base 256.
        let mut damaged = good.clone();
        damaged[148..156].fill(byte);
        check(&damaged, "it is no tar archive");
    }
    check(b"", "is truncated");
    check(&tar_bytes(&[("a.png", &picture), ("a.cls", b"cat")]), "expected a label as a whole number, got `cat`");
    check(&tar_bytes(&[("a.png", &picture), ("b.png", &picture), ("a.png", &picture)]), "two samples are called");
    check(&tar_bytes(&[("a.txt", b"x")]), "no pictures in");
    let missing = TarSource::open(&root.path().join("x-{0..1}.tar"), Split::Train, OPTIONS).unwrap_err();
    assert!(missing.to_string().contains("x-0.tar cannot be read"), "{missing}");
}

#[test]
fn a_pack_is_the_set_it_was_made_of() {
    let root = tempfile::tempdir().unwrap();
    for (name, form) in [("a", PackForm::Original), ("b", PackForm::Decoded)] {
        let file = pack(&root.path().join(name), form, 0);
        let (source, packed) =
            (open_folder(&root.path().join(name).join("folder"), 0), PackSource::open(&file, OPTIONS).unwrap());
        assert_eq!((packed.len(), packed.classes()), (source.len(), source.classes()));
        for i in 0..source.len() {
            assert_eq!(packed.image(i).unwrap(), source.image(i).unwrap());
            assert_eq!((packed.name(i), packed.label(i)), (source.name(i), source.label(i)));
        }
        assert_eq!(packed.meta().source, source.fingerprint().to_string());
        assert_eq!(packed.meta().form, form);
    }
    let file = pack(&root.path().join("small"), PackForm::MaxSide { px: 10 }, 0);
    let packed = PackSource::open(&file, OPTIONS).unwrap();
    let image = packed.image(0).unwrap();
    assert_eq!((image.width(), image.height()), (10, 8));
    // A copy of a pack is the same set, and a pack of a pack holds the same files.
    let copy = root.path().join("copy.pack");
    fs::copy(&file, &copy).unwrap();
    assert_eq!(PackSource::open(&copy, OPTIONS).unwrap().fingerprint(), packed.fingerprint());
}

fn groups(source: &dyn Source) -> Vec<u64> {
    (0..source.len()).map(|i| source.group(i)).collect()
}

/// Which pictures are negatives of each other must not depend on the form that the set is kept in.
#[test]
fn a_pack_knows_the_copies_that_the_folder_knows() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    folder(&at("set"), 0);
    write(&at("set/cat/7.png"), &png(3, 0)); // as dog/3.png
    write(&at("set/dog/8.png"), &png(0, 0)); // as cat/0.png
    write(&at("set/dog/9.png"), &png(0, 0));
    // The same pixels in other bytes, which is no copy to a folder.
    write(&at("set/dog/99.png"), &[&png(0, 0)[..], b"junk"].concat());
    let source = open_folder(&at("set"), 0);
    // cat: 0, 2, 4, 7; dog: 1, 3, 5, 8, 9, 99.
    assert_eq!(groups(&source), [0, 1, 2, 3, 4, 3, 6, 0, 0, 9]);
    for (name, form) in
        [("original", PackForm::Original), ("decoded", PackForm::Decoded), ("small", PackForm::MaxSide { px: 10 })]
    {
        let file = at(&format!("{name}.pack"));
        write_pack(&source, "", &file, form, OPTIONS, 0.0, &|_, _| {}).unwrap();
        let packed = PackSource::open(&file, OPTIONS).unwrap();
        assert_eq!(groups(&packed), groups(&source), "{name}");
        // And a pack of the pack.
        let again = at(&format!("{name}-again.pack"));
        write_pack(&packed, "", &again, PackForm::Original, OPTIONS, 0.0, &|_, _| {}).unwrap();
        assert_eq!(groups(&PackSource::open(&again, OPTIONS).unwrap()), groups(&source), "{name} again");
    }
    let file = pack(&at("none"), PackForm::Original, 0);
    assert_eq!(groups(&PackSource::open(&file, OPTIONS).unwrap()), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn copies_in_shards_are_known_by_all_their_bytes() {
    let root = tempfile::tempdir().unwrap();
    let large = encode_png(&Image::from_rgb8(80, 60, noise(80 * 60 * 3, 1)).unwrap()).unwrap();
    assert!(large.len() > 3 * 4096);
    let mut edited = large.clone();
    edited[large.len() / 2] ^= 1;
    let open = |name: &str, members: [&[u8]; 4]| {
        let folder = root.path().join(name);
        let [a, b, c, d] = members;
        write(&folder.join("train-0.tar"), &tar_bytes(&[("a.png", a), ("b.png", b)]));
        write(&folder.join("train-1.tar"), &tar_bytes(&[("a.png", c), ("d.png", d)]));
        TarSource::open(&folder, Split::Train, OPTIONS).unwrap()
    };
    let small = png(0, 0);
    // Of the same length and with the same ends, but another picture.
    let source = open("copies", [&large, &small, &edited, &large]);
    assert_eq!(groups(&source), [0, 1, 2, 0]);
    let all = open("all", [&small, &large, &small, &large]);
    assert_eq!(groups(&all), [0, 1, 0, 1]);
    let other = open("other", [&large, &small, &large, &edited]);
    assert_eq!(groups(&other), [0, 1, 0, 3]);
    assert_ne!(source.fingerprint(), other.fingerprint(), "another grouping is another loss");
    let without =
        TarSource::open(&root.path().join("copies"), Split::Train, DecodeOptions { max_file_bytes: 5000, ..OPTIONS });
    assert_eq!(groups(&without.unwrap()), [0, 1, 2, 3], "what is too large is not read");
}

/// A PNG file with this EXIF orientation.
fn tagged(image: &Image, orientation: u8) -> Vec<u8> {
    let file = encode_png(image).unwrap();
    let exif = [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(), &[orientation, 0, 0, 0], &[0; 4]].concat();
    let mut crc = flate2::Crc::new();
    [b"eXIf", &exif[..]].iter().for_each(|part| crc.update(part));
    // Behind the signature and the header, which have 8 and 25 bytes.
    let length = u32::try_from(exif.len()).unwrap().to_be_bytes();
    [&file[..33], &length, b"eXIf", &exif, &crc.sum().to_be_bytes(), &file[33..]].concat()
}

#[test]
fn a_pack_holds_all_pictures_the_same_way_up() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let upright = DecodeOptions { exif_rotate: true, ..OPTIONS };
    let wide =
        |i: u64, width, height| Image::from_rgb8(width, height, noise((width * height * 3) as usize, i)).unwrap();
    // Larger than 32 pixels and smaller, turned and not.
    let files = [tagged(&wide(1, 48, 24), 6), tagged(&wide(2, 24, 12), 6), tagged(&wide(3, 24, 12), 1), png(4, 0)];
    for (i, bytes) in files.iter().enumerate() {
        write(&at(&format!("set/{i}.png")), bytes);
    }
    let turned: Vec<Image> = files.iter().map(|file| decode(file, &upright).unwrap()).collect();
    assert_eq!((turned[1].width(), turned[1].height()), (12, 24));
    // The options given to the writer count, not those that the source reads with.
    let source = open_folder(&at("set"), 0);
    let packed = |name: &str, form, options| {
        write_pack(&source, "", &at(name), form, options, 0.0, &|_, _| {}).unwrap();
        at(name)
    };
    let sides = |source: &PackSource| -> Vec<(u32, u32)> {
        let images = (0..4).map(|i| source.image(i).unwrap());
        images.map(|image| (image.width(), image.height())).collect()
    };
    let refused = |file: &Path, options: DecodeOptions| {
        let error = PackSource::open(file, options).unwrap_err();
        let (want, other) = (!options.exif_rotate, options.exif_rotate);
        assert!(
            matches!(error, PackError::Turned { packed, asked, .. } if packed == want && asked == other),
            "{error}"
        );
        assert!(error.to_string().contains(&format!("set data.source.exif_rotate = {want}")), "{error}");
    };

    let small = PackForm::MaxSide { px: 32 };
    let file = packed("small-upright.pack", small, upright);
    let read = PackSource::open(&file, upright).unwrap();
    assert_eq!(sides(&read), [(16, 32), (12, 24), (24, 12), (21, 16)]);
    (1..4).for_each(|i| assert_eq!(read.image(i).unwrap(), turned[i]));
    assert!(read.meta().exif_rotate);
    // Whoever takes the files out of it gets pictures that need no turning.
    let mut buffers = ReadBuffers::default();
    for i in 0..4 {
        assert!(read.read_file(i, &mut buffers).unwrap());
        assert_eq!(decode(&buffers.bytes, &OPTIONS).unwrap(), read.image(i).unwrap());
    }
    assert_eq!(buffers.bytes, files[3], "what is neither large nor turned is kept as it is");
    refused(&file, OPTIONS);

    let file = packed("small-stored.pack", small, OPTIONS);
    assert_eq!(sides(&PackSource::open(&file, OPTIONS).unwrap()), [(32, 16), (24, 12), (24, 12), (21, 16)]);
    refused(&file, upright);

    let file = packed("decoded.pack", PackForm::Decoded, upright);
    let read = PackSource::open(&file, upright).unwrap();
    (0..4).for_each(|i| assert_eq!(read.image(i).unwrap(), turned[i]));
    refused(&file, OPTIONS);

    // Files that are kept leave it to the reader.
    let file = packed("original.pack", PackForm::Original, OPTIONS);
    assert_eq!(sides(&PackSource::open(&file, OPTIONS).unwrap())[0], (48, 24));
    assert_eq!(sides(&PackSource::open(&file, upright).unwrap())[0], (24, 48));
}

#[test]
fn packing_leaves_bad_pictures_out_and_says_so() {
    let root = tempfile::tempdir().unwrap();
    let good = png(0, 0);
    let members: [(&str, &[u8]); 3] = [("a.png", &good), ("b.png", b"no picture"), ("c.png", &good)];
    let tar = write(&root.path().join("set.tar"), &tar_bytes(&members));
    let source = TarSource::open(&tar, Split::Train, OPTIONS).unwrap();
    let out = root.path().join("set.pack");
    let write_it = |allowed| write_pack(&source, "x", &out, PackForm::Original, OPTIONS, allowed, &|_, _| {});
    let error = write_it(0.0).unwrap_err();
    assert!(error.to_string().contains("1 of 3 pictures cannot be used"), "{error}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "nothing may be left behind");
    let report = write_it(0.5).unwrap();
    assert_eq!((report.pictures, report.bad_files.len()), (2, 1));
    assert_eq!(report.bad_files[0].path, tar.join("b.png"));
    let packed = PackSource::open(&out, OPTIONS).unwrap();
    assert_eq!((packed.name(1).as_ref(), groups(&packed)), ("set.tar/c.png", vec![0, 0]));
    assert!(matches!(write_it(0.5), Err(WritePackError::Exists { .. })));
}

#[test]
fn packs_that_are_none_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let file = pack(root.path(), PackForm::Original, 0);
    let bytes = fs::read(&file).unwrap();
    let open = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        PackSource::open(&file, OPTIONS).unwrap_err()
    };
    assert!(matches!(open(&bytes[..bytes.len() - 1]), PackError::Length { .. }));
    assert!(matches!(open(&bytes[..50]), PackError::Foreign { .. }));
    assert!(matches!(open(b""), PackError::Foreign { .. }));
    assert!(matches!(open(&[b"PAR1", &bytes[4..]].concat()), PackError::Foreign { .. }));
    let mut newer = bytes.clone();
    newer[8] = 2;
    assert!(matches!(open(&newer), PackError::OtherVersion { got: 2, .. }));
    let mut names = bytes;
    let place = names.windows(9).rposition(|window| window == b"cat/0.png").unwrap();
    names[place] = b'r';
    assert!(matches!(open(&names), PackError::Corrupt { .. }));
}

#[test]
fn kinds_are_told_apart_by_their_path() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let is = |name: &str, want| assert_eq!(SourceKind::detect(&at(name)).unwrap(), want, "{name}");
    folder(&at("pictures"), 0);
    cifar10_binary(&at("cifar"), 0);
    stl(&at("stl"), 0);
    idx(&at("idx"), true, 0);
    tar_shards(&at("tar"), 0);
    tar_shards(&at("mixed"), 0);
    folder(&at("mixed"), 0);
    write(&at("hf/data/train-0.parquet"), b"PAR1");
    write(&at("hf/README.md"), b"");
    fs::copy(pack(&at("made"), PackForm::Original, 0), at("packed")).unwrap();
    for (name, want) in [
        ("pictures", SourceKind::Folder),
        ("mixed", SourceKind::Folder),
        ("cifar", SourceKind::Cifar),
        ("stl", SourceKind::Stl),
        ("idx", SourceKind::Idx),
        ("tar", SourceKind::Tar),
        ("tar/train-000.tar", SourceKind::Tar),
        ("tar/train-{000..001}.tar", SourceKind::Tar),
        ("hf", SourceKind::Parquet),
        ("hf/data", SourceKind::Parquet),
        ("packed", SourceKind::Pack),
        ("made/set.pack", SourceKind::Pack),
    ] {
        is(name, want);
    }
    let refused = |name: &str| SourceKind::detect(&at(name)).unwrap_err();
    assert!(matches!(refused("nothing"), DetectError::Missing { .. }));
    assert!(refused("cifar/test_batch.bin").to_string().ends_with("is one file of a set: give its folder"));
    assert!(refused("pictures/cat/0.png").to_string().contains("a single picture"));
    write(&at("both/a.tar"), b"");
    write(&at("both/a.parquet"), b"");
    assert!(refused("both").to_string().contains("1 .parquet and 1 .tar"));
    // A published set in its sub-folder must not hide what lies beside it.
    cifar10_binary(&at("home/cifar-10-batches-bin"), 0);
    write(&at("home/archive.tar.gz"), b"");
    is("home", SourceKind::Cifar);
    folder(&at("home/holiday"), 0);
    let beside = refused("home").to_string();
    assert!(beside.contains("cifar-10-batches-bin (cifar files) and picture files such as "), "{beside}");
    idx(&at("several/raw"), false, 0);
    stl(&at("several"), 0);
    let several = refused("several").to_string();
    assert!(several.contains("stl10_binary (stl files) and "), "{several}");
    assert!(several.ends_with("raw (idx files): give the path of one of them"), "{several}");
}

#[test]
fn sets_without_files_are_packed_as_pixels() {
    let root = tempfile::tempdir().unwrap();
    let source = PatternsSource::new(PatternsConfig { seed: 3, split: Split::Test, per_class: 1 }).unwrap();
    let out = root.path().join("patterns.pack");
    write_pack(&source, "", &out, PackForm::Original, OPTIONS, 0.0, &|_, _| {}).unwrap();
    let packed = PackSource::open(&out, OPTIONS).unwrap();
    (0..10).for_each(|i| assert_eq!(packed.image(i).unwrap(), source.image(i).unwrap()));
}

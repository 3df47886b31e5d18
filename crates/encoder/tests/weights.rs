//! Loading by name and from files: exact round trips, typed errors, no trust in bytes.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, TensorData};
use support::{filled, small_encoder};
use twoview_encoder::{
    Arch, EncoderConfig, MAX_HEADER_BYTES, NamedTensors, SafetensorsError, Stem, WeightsError, load_named,
    load_safetensors, named_tensors, save_safetensors,
};

fn state() -> NamedTensors {
    named_tensors(&filled(small_encoder(0, &Device::flex()), 11))
}

fn load_error(tensors: NamedTensors) -> WeightsError {
    load_named(small_encoder(0, &Device::flex()), tensors).expect_err("does not fit")
}

#[test]
fn what_torchvision_has_and_an_encoder_has_not_is_passed_over() {
    let mut tensors = state();
    tensors.push(("fc.weight".into(), TensorData::zeros::<f32, _>([1000, 32])));
    tensors.push(("fc.bias".into(), TensorData::zeros::<f32, _>([1000])));
    tensors.push(("layer1.0.bn1.num_batches_tracked".into(), TensorData::new(vec![5_i64], Vec::<usize>::new())));
    let encoder = load_named(small_encoder(0, &Device::flex()), tensors).expect("fits");
    assert_eq!(named_tensors(&encoder), state());
}

#[test]
fn misfits_name_the_tensor_and_both_sides() {
    let missing: NamedTensors = state().into_iter().filter(|(name, _)| name != "bn1.bias").collect();
    assert_eq!(load_error(missing), WeightsError::Missing { name: "bn1.bias".into(), expected: vec![4] });

    let mut unexpected = state();
    unexpected.push(("bn7.bias".into(), TensorData::zeros::<f32, _>([3])));
    assert_eq!(load_error(unexpected), WeightsError::Unexpected { name: "bn7.bias".into(), got: vec![3] });

    let mut duplicate = state();
    duplicate.push(duplicate[0].clone());
    assert_eq!(load_error(duplicate), WeightsError::Duplicate { name: "conv1.weight".into() });

    let wider = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 5 };
    let wider = named_tensors(&wider.init(0, &Device::flex()).expect("valid"));
    let error = load_error(wider);
    let (expected, got) = (vec![4, 3, 3, 3], vec![5, 3, 3, 3]);
    assert_eq!(error, WeightsError::Shape { name: "conv1.weight".into(), expected, got });
    assert!(error.to_string().contains("expected shape [4, 3, 3, 3], got [5, 3, 3, 3]"), "{error}");
}

#[test]
fn half_precision_widens_and_double_precision_is_refused() {
    let halves: NamedTensors = state().into_iter().map(|(name, data)| (name, data.convert_dtype(DType::F16))).collect();
    let widened: NamedTensors =
        halves.iter().map(|(name, data)| (name.clone(), data.clone().convert_dtype(DType::F32))).collect();
    let encoder = load_named(small_encoder(0, &Device::flex()), halves).expect("fits");
    assert_eq!(named_tensors(&encoder), widened);

    let doubles = state().into_iter().map(|(name, data)| (name, data.convert_dtype(DType::F64))).collect();
    let (expected, got) = (DType::F32, DType::F64);
    assert_eq!(load_error(doubles), WeightsError::ElementType { name: "conv1.weight".into(), expected, got });
}

fn metadata() -> BTreeMap<String, String> {
    [("format", "pt"), ("arch", "resnet18"), ("note", "\"quoted\" – not ASCII")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn saved(folder: &Path) -> PathBuf {
    let path = folder.join("weights.safetensors");
    save_safetensors(&path, &state(), &metadata()).expect("writable");
    path
}

#[test]
fn a_file_gives_back_the_same_bits() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("all.safetensors");
    let mut tensors = state();
    // Values and types that a sloppy conversion would lose.
    tensors.push(("odd".into(), TensorData::from([f32::NAN, -0.0, f32::INFINITY, f32::MIN_POSITIVE / 2.0])));
    tensors.push(("step".into(), TensorData::new(vec![i64::MIN, i64::MAX], [2])));
    tensors.push(("byte".into(), TensorData::from([1_u8, 2, 3])));
    tensors.push(("scalar".into(), TensorData::new(vec![0.1_f64], Vec::<usize>::new())));
    tensors.push(("empty".into(), TensorData::new(Vec::<f32>::new(), [0, 3])));
    save_safetensors(&path, &tensors, &metadata()).expect("writable");

    let content = load_safetensors(&path).expect("readable");
    assert_eq!(content.metadata, metadata());
    let by_name = |tensors: NamedTensors| -> BTreeMap<String, (DType, Vec<usize>, Vec<u8>)> {
        let parts = |data: &TensorData| (data.dtype(), data.shape().as_slice().to_vec(), data.as_bytes().to_vec());
        tensors.iter().map(|(name, data)| (name.clone(), parts(data))).collect()
    };
    assert_eq!(by_name(content.tensors), by_name(tensors));
}

#[test]
fn a_file_is_a_function_of_its_content_and_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let first = std::fs::read(saved(folder.path())).expect("readable");
    let second = std::fs::read(saved(folder.path())).expect("readable");
    assert_eq!(first, second);
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
}

#[test]
fn the_reference_implementation_reads_our_files() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let bytes = std::fs::read(saved(folder.path())).expect("readable");
    let parsed = safetensors::SafeTensors::deserialize(&bytes).expect("valid");
    assert_eq!(parsed.len(), state().len());
    for (name, data) in state() {
        let view = parsed.tensor(&name).expect("present");
        assert_eq!((view.shape(), view.data()), (data.shape().as_slice(), data.as_bytes()), "{name}");
        assert_eq!(view.dtype(), safetensors::Dtype::F32);
        assert_eq!(view.data().as_ptr().addr() % 4, bytes.as_ptr().addr() % 4, "{name} is aligned in the file");
    }
}

#[test]
fn a_failed_write_keeps_the_old_file() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = saved(folder.path());
    let old = std::fs::read(&path).expect("readable");
    let twice = vec![state().remove(0), state().remove(0)];
    for bad in [twice, vec![("__metadata__".to_owned(), TensorData::from([1.0_f32]))]] {
        let error = save_safetensors(&path, &bad, &metadata()).expect_err("bad name");
        assert!(matches!(error, SafetensorsError::Name { .. }), "{error}");
    }
    let long = usize::try_from(MAX_HEADER_BYTES).expect("fits");
    let error = save_safetensors(&path, &[], &BTreeMap::from([("x".into(), "x".repeat(long))]));
    assert!(matches!(error, Err(SafetensorsError::HeaderTooLong { .. })));
    let error = save_safetensors(&folder.path().join("none/file"), &[], &metadata()).expect_err("no folder");
    assert!(matches!(error, SafetensorsError::Io { action: "create", .. }), "{error}");
    assert_eq!(std::fs::read(&path).expect("readable"), old);
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
}

/// The error of a file with these bytes.
#[track_caller]
fn read_error(folder: &Path, bytes: &[u8]) -> SafetensorsError {
    let path = folder.join("bad.safetensors");
    std::fs::write(&path, bytes).expect("writable");
    load_safetensors(&path).expect_err("corrupt")
}

fn with_header(header: &str, n_data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + n_data_bytes, 0);
    bytes
}

#[test]
fn truncated_files_are_errors_at_every_length() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let bytes = std::fs::read(saved(folder.path())).expect("readable");
    let lengths = (0..200).chain((200..bytes.len()).step_by(997)).chain([bytes.len() - 1]);
    for length in lengths {
        read_error(folder.path(), &bytes[..length]);
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(read_error(folder.path(), &longer), SafetensorsError::Size { .. }));
}

#[test]
fn a_flipped_bit_in_the_header_never_panics() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("flipped.safetensors");
    let tensors = vec![("a".to_owned(), TensorData::from([1.0_f32, 2.0])), ("b".to_owned(), TensorData::from([3_i64]))];
    save_safetensors(&path, &tensors, &metadata()).expect("writable");
    let bytes = std::fs::read(&path).expect("readable");
    let mut n_errors = 0;
    for bit in 0..8 * (bytes.len() - 16) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &flipped).expect("writable");
        // A flip inside a name or the metadata is a valid file; all else must be noticed.
        n_errors += usize::from(load_safetensors(&path).is_err());
    }
    assert!(n_errors > 400, "{n_errors}");
}

#[test]
fn headers_that_lie_are_typed_errors() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let error = |bytes: &[u8]| read_error(folder.path(), bytes);

    assert!(matches!(error(&u64::MAX.to_le_bytes()), SafetensorsError::HeaderLength { max: 0, .. }));
    let mut huge = (MAX_HEADER_BYTES + 1).to_le_bytes().to_vec();
    huge.resize(usize::try_from(MAX_HEADER_BYTES).expect("fits") + 100, b' ');
    assert!(matches!(error(&huge), SafetensorsError::HeaderLength { max: MAX_HEADER_BYTES, .. }));

    for header in ["", "{", "[]", "\u{0}", r#"{"a": 1}"#, r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#] {
        let error = error(&with_header(header, 4));
        assert!(matches!(error, SafetensorsError::Header { .. }), "{header}: {error}");
    }
    // An overlap, a gap and a shape whose product overflows.
    for offsets in [["0,4", "0,4"], ["0,4", "8,12"], ["0,4", "4,2"]] {
        let [a, b] = offsets;
        let header = format!(
            r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":[{a}]}},"b":{{"dtype":"F32","shape":[1],"data_offsets":[{b}]}}}}"#
        );
        assert!(matches!(error(&with_header(&header, 12)), SafetensorsError::Header { .. }), "{header}");
    }
    let overflow = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
    assert!(matches!(error(&with_header(overflow, 0)), SafetensorsError::Header { .. }));

    // Tensors of 2⁶⁰ bytes each, whose offsets add up almost to 2⁶⁴.
    let tile = 1_u64 << 60;
    let tiles: Vec<String> = (0..15)
        .map(|i| {
            format!(r#""t{i:02}":{{"dtype":"U8","shape":[{tile}],"data_offsets":[{},{}]}}"#, i * tile, (i + 1) * tile)
        })
        .collect();
    let last = u64::MAX - 15 * tile;
    let header = format!(
        r#"{{{},"z":{{"dtype":"U8","shape":[{last}],"data_offsets":[{},{}]}}}}"#,
        tiles.join(","),
        15 * tile,
        u64::MAX
    );
    let got = error(&with_header(&header, 0));
    assert!(matches!(got, SafetensorsError::Size { expected: u64::MAX, .. }), "{got}");

    let complex = r#"{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}"#;
    let got = error(&with_header(complex, 8));
    assert!(matches!(&got, SafetensorsError::ElementType { got, .. } if got == "C64"), "{got}");
}

#[test]
fn what_is_no_file_is_an_error() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for path in [folder.path().to_owned(), folder.path().join("missing")] {
        let error = load_safetensors(&path).expect_err("no file");
        assert!(matches!(error, SafetensorsError::Io { action: "read", .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()));
    }
    read_error(folder.path(), b"\x89PNG\r\n\x1a\n and so on");
}

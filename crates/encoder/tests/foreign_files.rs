//! Weights in the files of other programs: what PyTorch writes is read to the bit, what is hostile is refused.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, TensorData};
use support::{crc32, filled, small_encoder};
use twoview_encoder::{
    FindEncoderError, NamedTensors, PickleError, TorchFileError, WeightsError, WeightsFile, WeightsFileError, ZipError,
    find_encoder, load_safetensors, named_tensors, save_safetensors, with_batch_counters,
};

fn state() -> NamedTensors {
    named_tensors(&filled(small_encoder(0, &Device::flex()), 5))
}

/// A file of `torch.save` in the making.
struct TorchSave {
    pickle: Vec<u8>,
    entries: Vec<(String, Vec<u8>)>,
    /// The method that the directory claims.
    method: u16,
}

impl TorchSave {
    /// A state dict as `torch.save` writes one, below the key `state_dict`.
    fn state_dict(tensors: &[(String, TensorData)]) -> Self {
        let mut pickle = b"\x80\x02}".to_vec();
        text(&mut pickle, "epoch");
        pickle.extend(b"K\x05s");
        text(&mut pickle, "state_dict");
        pickle.extend(b"ccollections\nOrderedDict\n)R(");
        let mut entries = Vec::new();
        for (key, (name, data)) in tensors.iter().enumerate() {
            let storage = match data.dtype() {
                DType::F32 => "FloatStorage",
                DType::F16 => "HalfStorage",
                DType::F64 => "DoubleStorage",
                DType::I64 => "LongStorage",
                other => panic!("{other:?}"),
            };
            text(&mut pickle, name);
            tensor(&mut pickle, storage, &key.to_string(), data.shape().num_elements(), data.shape().as_slice());
            entries.push((format!("data/{key}"), data.as_bytes().to_vec()));
        }
        pickle.extend(b"us.");
        Self { pickle, entries, method: 0 }
    }

    /// The zip archive.
    fn bytes(&self) -> Vec<u8> {
        let pickle = ("data.pkl".to_owned(), self.pickle.clone());
        let byteorder = ("byteorder".to_owned(), b"little".to_vec());
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        let mut n = 0_u16;
        for (name, content) in [pickle, byteorder].iter().chain(&self.entries) {
            let name = format!("archive/{name}");
            let at = u32::try_from(file.len()).expect("small");
            let len = u32::try_from(content.len()).expect("small");
            let name_len = u16::try_from(name.len()).expect("short");
            let sizes = [crc32(content), len, len].map(u32::to_le_bytes).concat();
            file.extend(b"PK\x03\x04\0\0\0\0");
            file.extend(self.method.to_le_bytes());
            file.extend([0; 4]);
            file.extend(&sizes);
            file.extend(name_len.to_le_bytes());
            file.extend([0; 2]);
            file.extend(name.as_bytes());
            file.extend(content);
            directory.extend(b"PK\x01\x02\0\0\0\0\0\0");
            directory.extend(self.method.to_le_bytes());
            directory.extend([0; 4]);
            directory.extend(&sizes);
            directory.extend(name_len.to_le_bytes());
            directory.extend([0; 12]);
            directory.extend(at.to_le_bytes());
            directory.extend(name.as_bytes());
            n += 1;
        }
        let (begins, len) = (file.len(), directory.len());
        file.extend(directory);
        file.extend(b"PK\x05\x06\0\0\0\0");
        file.extend([n.to_le_bytes(), n.to_le_bytes()].concat());
        file.extend([len, begins].map(|n| u32::try_from(n).expect("small").to_le_bytes()).concat());
        file.extend([0; 2]);
        file
    }

    fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("weights.pth");
        std::fs::write(&path, self.bytes()).expect("writable");
        path
    }
}

fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend(u32::try_from(text.len()).expect("short").to_le_bytes());
    pickle.extend(text.as_bytes());
}

fn int(pickle: &mut Vec<u8>, value: usize) {
    pickle.push(b'J');
    pickle.extend(i32::try_from(value).expect("small").to_le_bytes());
}

/// `torch._utils._rebuild_tensor_v2` of a whole storage.
fn tensor(pickle: &mut Vec<u8>, storage: &str, key: &str, len: usize, shape: &[usize]) {
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(pickle, "storage");
    pickle.extend(format!("ctorch\n{storage}\n").as_bytes());
    text(pickle, key);
    text(pickle, "cpu");
    int(pickle, len);
    pickle.extend(b"tQK\0(");
    shape.iter().for_each(|side| int(pickle, *side));
    pickle.extend(b"t(");
    for i in 0..shape.len() {
        int(pickle, shape[i + 1..].iter().product());
    }
    pickle.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
}

/// What a file holds of an encoder, by our names.
fn imported(path: &Path) -> Result<(NamedTensors, NamedTensors), FindEncoderError> {
    let mut file = WeightsFile::open(path)?;
    let (encoder, counters) = find_encoder(&file.tensors(), None)?.take_from(&mut file, &Device::flex())?;
    Ok((named_tensors(&encoder), counters))
}

#[test]
fn a_file_of_torch_save_gives_back_the_same_bits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let counters = with_batch_counters(state(), &[], 7);
    let mut tensors: NamedTensors =
        counters.iter().map(|(name, data)| (format!("module.encoder_q.{name}"), data.clone())).collect();
    tensors.push(("module.encoder_q.fc.0.weight".into(), TensorData::zeros::<f32, _>([3, 3])));
    tensors.push(("module.queue".into(), TensorData::zeros::<f32, _>([4, 4])));
    let path = TorchSave::state_dict(&tensors).write(folder.path());

    let mut file = WeightsFile::open(&path).expect("readable");
    let found = find_encoder(&file.tensors(), None).expect("an encoder");
    assert_eq!(found.prefix, "state_dict.module.encoder_q.");
    let ignored = [("state_dict.module.encoder_q.fc", 1), ("state_dict.module.queue", 1)];
    assert_eq!(found.ignored, ignored.map(|(name, n)| (name.to_owned(), n)).into());
    let (encoder, kept) = found.take_from(&mut file, &Device::flex()).expect("fits");
    assert_eq!(named_tensors(&encoder), state());

    // Out and in again as safetensors: the same bits, counters included.
    let path = folder.path().join("again.safetensors");
    save_safetensors(&path, &with_batch_counters(named_tensors(&encoder), &kept, 0), &BTreeMap::new())
        .expect("written");
    let by_name = |tensors: NamedTensors| tensors.into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(by_name(load_safetensors(&path).expect("readable").tensors), by_name(counters));
    assert_eq!(imported(&path).expect("an encoder").0, state());
}

#[test]
fn half_precision_widens_and_double_precision_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let converted =
        |dtype| -> NamedTensors { state().into_iter().map(|(name, data)| (name, data.convert_dtype(dtype))).collect() };
    let path = TorchSave::state_dict(&converted(DType::F16)).write(folder.path());
    let widened: NamedTensors =
        converted(DType::F16).into_iter().map(|(name, data)| (name, data.convert_dtype(DType::F32))).collect();
    assert_eq!(imported(&path).expect("an encoder").0, widened);
    let path = TorchSave::state_dict(&converted(DType::F64)).write(folder.path());
    match imported(&path) {
        Err(FindEncoderError::Weights { source: WeightsError::ElementType { got, .. }, .. }) => {
            assert_eq!(got, DType::F64);
        }
        other => panic!("expected an element type, got {other:?}"),
    }
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut tensors = state();
    let n = tensors[0].1.shape().num_elements();
    tensors[0].1 = TensorData::new(vec![f32::NAN; n], tensors[0].1.shape());
    let path = TorchSave::state_dict(&tensors).write(folder.path());
    let name = "state_dict.conv1.weight";
    assert!(matches!(imported(&path), Err(FindEncoderError::NotFinite { name: got }) if got == name));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = TorchSave::state_dict(&state()).bytes();
    let path = folder.path().join("cut.pth");
    for length in (0..600).chain((600..whole.len()).step_by(487)).chain([whole.len() - 1]) {
        std::fs::write(&path, &whole[..length]).expect("writable");
        assert!(WeightsFile::open(&path).is_err(), "{length} of {} bytes", whole.len());
    }
    std::fs::write(&path, &whole).expect("writable");
    assert!(imported(&path).is_ok());
}

#[test]
fn a_flipped_bit_never_panics_and_never_changes_a_weight() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = TorchSave::state_dict(&state()).bytes();
    let path = folder.path().join("flipped.pth");
    for bit in (0..8 * whole.len()).step_by(3331) {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &flipped).expect("writable");
        // A flip in what nobody reads, such as a date, changes nothing.
        if let Ok((tensors, _)) = imported(&path) {
            assert_eq!(tensors, state(), "bit {bit}");
        }
    }
}

#[test]
fn packed_entries_are_refused_so_that_nothing_can_unpack_to_any_size() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bomb = TorchSave { method: 8, ..TorchSave::state_dict(&state()) };
    let error = WeightsFile::open(&bomb.write(folder.path())).expect_err("refused");
    assert!(
        matches!(error, WeightsFileError::Torch(TorchFileError::Zip(ZipError::Compressed { .. }))),
        "expected a compressed entry, got {error}"
    );
}

#[test]
fn a_pickle_that_runs_programs_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hostile = TorchSave::state_dict(&state());
    hostile.pickle.pop();
    hostile.pickle.extend(b"cos\nsystem\nX\x09\0\0\0touch owned\x85R0.");
    let path = hostile.write(folder.path());
    match WeightsFile::open(&path) {
        Err(WeightsFileError::Torch(TorchFileError::Pickle {
            source: PickleError::Forbidden { name, .. }, ..
        })) => {
            assert_eq!(name, "os.system")
        }
        other => panic!("expected a forbidden name, got {other:?}"),
    }
}

#[test]
fn tensors_that_claim_more_than_is_stored_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let with_tensor = |key: &str, len: usize, shape: &[usize]| {
        let mut pickle = b"\x80\x02}".to_vec();
        text(&mut pickle, "w");
        tensor(&mut pickle, "FloatStorage", key, len, shape);
        pickle.extend(b"s.");
        let file = TorchSave { pickle, entries: vec![("data/0".to_owned(), vec![0; 64])], method: 0 };
        let mut file = WeightsFile::open(&file.write(folder.path())).expect("readable");
        file.take("w")
    };
    assert!(matches!(with_tensor("0", 16, &[4, 4]), Ok(Some(_))));
    for (len, shape) in [(16, &[4, 5][..]), (1 << 30, &[1 << 15, 1 << 15]), (15, &[15]), (0, &[1])] {
        let error = with_tensor("0", len, shape).expect_err("refused");
        assert!(matches!(error, WeightsFileError::Torch(TorchFileError::Bounds { .. })), "{error}");
    }
    let error = with_tensor("7", 16, &[4, 4]).expect_err("refused");
    assert!(matches!(error, WeightsFileError::Torch(TorchFileError::Zip(ZipError::Missing { .. }))), "{error}");
    // A storage is named by a number: no way to another entry.
    assert!(matches!(with_tensor("../data.pkl", 16, &[4, 4]), Ok(None)));
}

#[test]
fn many_tensors_of_one_storage_do_not_multiply_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut pickle = b"\x80\x02}(".to_vec();
    for i in 0..64 {
        text(&mut pickle, &i.to_string());
        tensor(&mut pickle, "FloatStorage", "0", 1 << 14, &[1 << 14]);
    }
    pickle.extend(b"u.");
    let file = TorchSave { pickle, entries: vec![("data/0".to_owned(), vec![0; 1 << 16])], method: 0 };
    let mut file = WeightsFile::open(&file.write(folder.path())).expect("readable");
    let taken: Result<Vec<_>, _> = (0..64).map(|i: usize| file.take(&i.to_string())).collect();
    assert!(matches!(taken, Err(WeightsFileError::TooLarge { .. })));
}

#[test]
fn other_files_are_told_apart_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let says = |bytes: &[u8], words: &str| {
        let path = folder.path().join("other");
        std::fs::write(&path, bytes).expect("writable");
        let error = WeightsFile::open(&path).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    };
    says(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "before PyTorch 1.6");
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    says(&tar, "before PyTorch 1.6");
    says(b"<!DOCTYPE html><html>", "expected a .safetensors file or one of torch.save");
    says(b"\x02\0\0\0\0\0\0\0{?", "no safetensors file");
    says(b"PK\x03\x04 and nothing more", "no complete zip archive");
}

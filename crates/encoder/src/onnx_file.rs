//! The network as an ONNX file.
//!
//! Burn's exporter records the operations of a forward, and ours are kernels that it cannot see; a ResNet, on the other
//! hand, is written down in a page. The file is a protocol buffer, of which a writer needs three kinds of field.
//! Field numbers are those of `onnx.proto`, IR version 8. <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use burn::tensor::DType;

use crate::frozen::FrozenEncoder;
use crate::layer_plan::LayerPlan;
use crate::resnet::Stem;
use crate::whole_file::write_whole;

/// The version of ONNX's operators that [`save_onnx`] uses: old enough for every runtime of the last years.
pub const ONNX_OPSET: u32 = 17;

const IR_VERSION: u64 = 8;
/// Protocol buffers end at 2 GiB.
const MAX_BYTES: usize = i32::MAX as usize;
/// That of [`BatchNorm`](crate::batch_norm::BatchNorm).
const EPSILON: f32 = 1e-5;

/// Why an ONNX file cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// `create`, `write` or `rename`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The weights exceed what one file of the format can hold.
    #[error("cannot write {}: the network has {got} bytes, and ONNX files hold less than {max}; export safetensors instead", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        max: usize,
        /// Bytes needed.
        got: usize,
    },
    /// A weight is not of type f32, as on a device set to half precision.
    #[error("cannot write {}: tensor `{name}` has elements of type {got:?}, expected F32", path.display())]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its element type.
        got: DType,
    },
}

/// Writes the encoder as it evaluates; an existing file is replaced in one step.
///
/// The graph has one input, `images`, `[batch, 3, height, width]` in f32, with all sides free but the second, and one output,
/// `features`, `[batch, F]`. Weights are initializers under torchvision's names, each normalization a node of its own, so a
/// reader finds the network and not an optimized form of it; runtimes fold the two themselves. The bytes are a function of
/// the arguments; `metadata` becomes the model's `metadata_props`.
///
/// # Errors
/// [`OnnxError`]; an existing file is untouched then.
///
/// # Example
/// ```
/// use std::collections::BTreeMap;
/// use twoview_encoder::{Arch, EncoderConfig, FrozenEncoder, Stem, save_onnx};
///
/// let config = EncoderConfig { arch: Arch::Resnet18, stem: Stem::Cifar, width: 2 };
/// let encoder = FrozenEncoder::new(&config.init(0, &burn::tensor::Device::flex())?);
/// let folder = tempfile::tempdir()?;
/// save_onnx(&folder.path().join("encoder.onnx"), &encoder, &BTreeMap::new())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_onnx(path: &Path, encoder: &FrozenEncoder, metadata: &BTreeMap<String, String>) -> Result<(), OnnxError> {
    let mut graph = Message::default();
    for node in nodes(encoder) {
        graph.message(1, &node);
    }
    graph.text(2, "encoder");
    for (name, data) in encoder.named_tensors() {
        if data.dtype() != DType::F32 {
            return Err(OnnxError::ElementType { path: path.to_owned(), name, got: data.dtype() });
        }
        let mut tensor = Message::default();
        data.shape().as_slice().iter().for_each(|side| tensor.varint(1, *side as u64));
        tensor.varint(2, ELEMENT_F32);
        tensor.text(8, &name);
        tensor.bytes(9, data.as_bytes());
        graph.message(5, &tensor);
    }
    let free = |name| Side::Free(name);
    graph.message(11, &value("images", &[free("batch"), Side::Fixed(3), free("height"), free("width")]));
    graph.message(12, &value("features", &[free("batch"), Side::Fixed(encoder.feature_dim() as u64)]));

    let mut model = Message::default();
    model.varint(1, IR_VERSION);
    model.text(2, "twoview");
    model.text(3, env!("CARGO_PKG_VERSION"));
    let mut opset = Message::default();
    opset.text(1, "");
    opset.varint(2, u64::from(ONNX_OPSET));
    model.message(8, &opset);
    for (key, text) in metadata {
        let mut entry = Message::default();
        entry.text(1, key);
        entry.text(2, text);
        model.message(14, &entry);
    }
    // The graph comes last, and is not copied into the model: it is nearly all of it.
    model.begin(7, graph.0.len());
    let got = model.0.len() + graph.0.len();
    if got > MAX_BYTES {
        return Err(OnnxError::TooLarge { path: path.to_owned(), max: MAX_BYTES, got });
    }
    write_whole(path, |file| file.write_all(&model.0).and_then(|()| file.write_all(&graph.0)))
        .map_err(|(action, source)| OnnxError::Io { action, path: path.to_owned(), source })
}

/// The operations in the order in which they run. Each is called by what it makes.
fn nodes(encoder: &FrozenEncoder) -> Vec<Message> {
    let config = encoder.config();
    let mut nodes = Nodes(Vec::new());
    let mut x = nodes.layer(&config.stem_layer(), "images");
    x = nodes.relu("relu", &x);
    if config.stem == Stem::Imagenet {
        let attributes = [ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])];
        x = nodes.node("MaxPool", "maxpool", &[&x], &attributes);
    }
    for block in config.block_layers() {
        let shortcut = block.downsample.as_ref().map_or(x.clone(), |layer| nodes.layer(layer, &x));
        for (i, layer) in block.branch.iter().enumerate() {
            x = nodes.layer(layer, &x);
            if i + 1 < block.branch.len() {
                x = nodes.relu(&format!("{}.relu{}", block.name, i + 1), &x);
            }
        }
        x = nodes.node("Add", &format!("{}.add", block.name), &[&x, &shortcut], &[]);
        x = nodes.relu(&block.name, &x);
    }
    x = nodes.node("GlobalAveragePool", "avgpool", &[&x], &[]);
    nodes.node("Flatten", "features", &[&x], &[int("axis", 1)]);
    nodes.0
}

struct Nodes(Vec<Message>);

impl Nodes {
    /// Convolution and normalization; returns the name of their output, as the others do.
    fn layer(&mut self, layer: &LayerPlan, x: &str) -> String {
        let LayerPlan { conv, norm, shape: [.., kernel], stride } = layer;
        let (kernel, stride) = (*kernel as u64, *stride as u64);
        let attributes =
            [ints("kernel_shape", &[kernel; 2]), ints("strides", &[stride; 2]), ints("pads", &[kernel / 2; 4])];
        let x = self.node("Conv", conv, &[x, &format!("{conv}.weight")], &attributes);
        let parts = ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{norm}.{part}"));
        let [weight, bias, mean, var] = parts.each_ref().map(String::as_str);
        self.node("BatchNormalization", norm, &[&x, weight, bias, mean, var], &[float("epsilon", EPSILON)])
    }

    fn relu(&mut self, name: &str, x: &str) -> String {
        self.node("Relu", name, &[x], &[])
    }

    fn node(&mut self, op: &str, output: &str, inputs: &[&str], attributes: &[Message]) -> String {
        let mut node = Message::default();
        inputs.iter().for_each(|input| node.text(1, input));
        node.text(2, output);
        node.text(3, output);
        node.text(4, op);
        attributes.iter().for_each(|attribute| node.message(5, attribute));
        self.0.push(node);
        output.to_owned()
    }
}

/// `TensorProto.DataType.FLOAT`
const ELEMENT_F32: u64 = 1;

fn float(name: &str, value: f32) -> Message {
    let mut attribute = Message::default();
    attribute.text(1, name);
    attribute.fixed32(2, value);
    attribute.varint(20, 1);
    attribute
}

fn int(name: &str, value: u64) -> Message {
    let mut attribute = Message::default();
    attribute.text(1, name);
    attribute.varint(3, value);
    attribute.varint(20, 2);
    attribute
}

fn ints(name: &str, values: &[u64]) -> Message {
    let mut attribute = Message::default();
    attribute.text(1, name);
    values.iter().for_each(|value| attribute.varint(8, *value));
    attribute.varint(20, 7);
    attribute
}

/// A side of an input or output.
enum Side {
    Fixed(u64),
    Free(&'static str),
}

/// `ValueInfoProto` of an f32 tensor.
fn value(name: &str, sides: &[Side]) -> Message {
    let [mut shape, mut tensor, mut kind, mut value] = [const { Message(Vec::new()) }; 4];
    for side in sides {
        let mut dim = Message::default();
        match side {
            Side::Fixed(n) => dim.varint(1, *n),
            Side::Free(name) => dim.text(2, name),
        }
        shape.message(1, &dim);
    }
    tensor.varint(1, ELEMENT_F32);
    tensor.message(2, &shape);
    kind.message(1, &tensor);
    value.text(1, name);
    value.message(2, &kind);
    value
}

/// A protocol buffer in the making. <https://protobuf.dev/programming-guides/encoding/>
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, field: u64, value: u64) {
        self.base128(field << 3);
        self.base128(value);
    }

    fn fixed32(&mut self, field: u64, value: f32) {
        self.base128(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.begin(field, bytes.len());
        self.0.extend(bytes);
    }

    /// What stands before `len` bytes of a field.
    fn begin(&mut self, field: u64, len: usize) {
        self.base128(field << 3 | 2);
        self.base128(len as u64);
    }

    /// Seven bits to the byte, the low ones first.
    fn base128(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{Arch, EncoderConfig};

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        let mut message = Message::default();
        message.varint(1, 150); // The specification's first example.
        message.text(2, "testing");
        message.fixed32(16, 1.0);
        let want = [&[0x08, 0x96, 0x01, 0x12, 0x07][..], b"testing", &[0x85, 0x01, 0, 0, 0x80, 0x3f]].concat();
        assert_eq!(message.0, want);
    }

    /// Fields of a message: number, and the bytes or the number it holds.
    fn fields(bytes: &[u8]) -> Vec<(u64, Vec<u8>, u64)> {
        let mut at = 0;
        let base128 = |at: &mut usize| {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = bytes[*at];
                *at += 1;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        };
        let mut found = Vec::new();
        while at < bytes.len() {
            let tag = base128(&mut at);
            match tag & 7 {
                0 => found.push((tag >> 3, Vec::new(), base128(&mut at))),
                2 => {
                    let len = usize::try_from(base128(&mut at)).expect("fits");
                    found.push((tag >> 3, bytes[at..at + len].to_vec(), 0));
                    at += len;
                }
                5 => at += 4,
                kind => panic!("a field of kind {kind}"),
            }
        }
        found
    }

    fn all(bytes: &[u8], field: u64) -> Vec<Vec<u8>> {
        fields(bytes).into_iter().filter(|(number, ..)| *number == field).map(|(_, bytes, _)| bytes).collect()
    }

    fn texts(bytes: &[u8], field: u64) -> Vec<String> {
        all(bytes, field).into_iter().map(|text| String::from_utf8(text).expect("UTF-8")).collect()
    }

    #[test]
    fn every_value_is_made_before_it_is_used_and_every_weight_is_there_bit_by_bit() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("encoder.onnx");
        for (arch, stem, n_nodes) in
            [(Arch::Resnet18, Stem::Cifar, 20 * 2 + 17 + 8 + 2), (Arch::Resnet50, Stem::Imagenet, 53 * 2 + 49 + 16 + 3)]
        {
            let config = EncoderConfig { arch, stem, width: 2 };
            let encoder = FrozenEncoder::new(&config.init(7, &Device::flex()).expect("valid"));
            let metadata = BTreeMap::from([("key".to_owned(), "value".to_owned())]);
            save_onnx(&path, &encoder, &metadata).expect("writable");
            let model = std::fs::read(&path).expect("readable");

            let metadata = all(&model, 14);
            assert_eq!((texts(&metadata[0], 1), texts(&metadata[0], 2)), (vec!["key".into()], vec!["value".into()]));
            let graph = all(&model, 7).remove(0);
            let mut known = texts(&all(&graph, 11)[0], 1);
            assert_eq!(known, ["images"]);
            let weights: Vec<(String, Vec<u8>)> =
                all(&graph, 5).iter().map(|tensor| (texts(tensor, 8).remove(0), all(tensor, 9).remove(0))).collect();
            let expected: Vec<(String, Vec<u8>)> =
                encoder.named_tensors().into_iter().map(|(name, data)| (name, data.as_bytes().to_vec())).collect();
            assert_eq!(weights, expected);
            known.extend(weights.into_iter().map(|(name, _)| name));
            let nodes = all(&graph, 1);
            assert_eq!(nodes.len(), n_nodes);
            for node in &nodes {
                let (inputs, outputs) = (texts(node, 1), texts(node, 2));
                assert!(inputs.iter().all(|input| known.contains(input)), "{inputs:?}");
                assert!(!known.contains(&outputs[0]), "{outputs:?} is made twice");
                known.extend(outputs);
            }
            assert_eq!(texts(&all(&graph, 12)[0], 1), [known.last().expect("nodes").clone()]);
        }
    }
}

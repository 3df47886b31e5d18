//! What is handed over with an exported encoder: what it is, where it came from, how it is loaded.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};
use twoview_encoder::{Arch, EncoderConfig, ONNX_OPSET, Stem, n_parameters};
use twoview_train::RunDir;

use crate::{
    args::{ExportFormat, Naming},
    encoder_weights::{EncoderWeights, UsedAs, View, as_written, described, sha256_of},
    failure::{Exit, Failure, OrExit, at},
    pictures::RunManifest,
    run_file::RunFile,
    run_plan::total_steps,
    terminal::note,
};

/// A card for one exported file.
pub(crate) struct ModelCard {
    card: Value,
    encoder: EncoderConfig,
    view: View,
    python: String,
}

impl ModelCard {
    /// Describes `file`, which was just written from `weights`.
    ///
    /// # Errors
    /// [`Exit::Io`] where `file` cannot be read.
    pub(crate) fn new(
        run_dir: &RunDir,
        manifest: &RunManifest,
        run_file: &RunFile,
        weights: &EncoderWeights,
        view: View,
        (format, naming): (ExportFormat, Naming),
        file: &Path,
    ) -> Result<Self, Failure> {
        let (bytes, sha256) = sha256_of(file).map_err(at(file))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let encoder = *weights.encoder.config();
        let python = match format {
            ExportFormat::Safetensors => torch_snippet(&encoder, naming, &view, &name),
            ExportFormat::Onnx => onnx_snippet(&view, &name),
        };
        // A run that only holds weights from elsewhere never looked at a picture.
        let was_imported = manifest.weights.as_ref().is_some_and(|origin| origin.used_as == UsedAs::Imported);
        let data = (!was_imported).then(|| {
            let data = &manifest.data;
            json!({ "pictures": data.pictures, "classes": data.classes.len(), "fingerprint": data.fingerprint })
        });
        let card = json!({
            "file": name,
            "format": format.name(),
            "bytes": bytes,
            "sha256": sha256,
            "twoview": env!("CARGO_PKG_VERSION"),
            "encoder": encoder,
            "parameters": n_parameters(&weights.encoder),
            "feature_dim": weights.encoder.feature_dim(),
            "size_px": view.size_px,
            "mean": as_written(&view.normalize.mean)?,
            "std": as_written(&view.normalize.std)?,
            "input": {
                "layout": "[N, 3, H, W], float32, channels red, green, blue",
                "pixels": "value / 255, in [0, 1], less the mean, divided by std",
                "resize": "shorter side to size_px, bilinear with antialiasing as Pillow does it on 8-bit pictures",
                "crop": "the central square of size_px",
            },
            "onnx": (format == ExportFormat::Onnx).then(|| json!({
                "opset": ONNX_OPSET,
                "input": "images [batch, 3, height, width]",
                "output": "features [batch, feature_dim]",
            })),
            "steps": weights.steps,
            // What training was to come to.
            "total_steps": (!was_imported).then(|| total_steps(run_file, manifest.data.pictures)).flatten(),
            "data": data,
            "weights": manifest.weights,
            "scores": scores(run_dir),
            "config": as_written(run_file)?,
            "python": python,
        });
        Ok(Self { card, encoder, view, python })
    }

    /// The card for programs.
    ///
    /// # Errors
    /// None known; the serializer's.
    pub(crate) fn to_json(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string_pretty(&self.card).or_exit(Exit::Bug)? + "\n")
    }

    /// The card for people.
    pub(crate) fn to_markdown(&self) -> String {
        let card = &self.card;
        let text = |key: &str| card[key].as_str().unwrap_or_default().to_owned();
        let View { size_px, normalize } = &self.view;
        let mut page = format!("# {}\n\n", text("file"));
        let mut line = |what: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(page, "- {what}: {value}");
        };
        line("encoder", described(&self.encoder));
        line("parameters", card["parameters"].to_string());
        line("features", format!("{}, after global average pooling", card["feature_dim"]));
        line(
            "input",
            format!(
                "pictures `[N, 3, {size_px}, {size_px}]`, RGB: shorter side resized to {size_px} px (bilinear, antialiased), central square, \
                 pixels / 255, mean {:?}, std {:?}",
                normalize.mean, normalize.std
            ),
        );
        if let Some(opset) = card["onnx"]["opset"].as_u64() {
            line("onnx", format!("opset {opset}; input `images`, output `features`; batch, height and width are free"));
        }
        let learned = "without labels unless the loss says otherwise";
        line(
            "trained",
            match (card["steps"].as_u64(), card["total_steps"].as_u64()) {
                (Some(steps), Some(total)) if steps < total => {
                    format!("{steps} of {total} steps, {learned}: **training has not ended**")
                }
                (Some(steps), _) => format!("{steps} steps, {learned}"),
                (None, Some(_)) => format!("how long is not known, {learned}"),
                (None, None) => "not by twoview".to_owned(),
            },
        );
        if let Some(data) = card["data"].as_object() {
            line("pictures", format!("{}, fingerprint {}", data["pictures"], data["fingerprint"]));
        }
        if let Some(weights) = card["weights"].as_object() {
            let used = if weights["used_as"] == "start" { "began with" } else { "imported from" };
            line(used, format!("{}, sha256 {}", weights["file"], weights["sha256"]));
        }
        line("sha256", text("sha256"));
        line("written by", format!("twoview {}", text("twoview")));
        if !card["scores"].is_null() {
            let scores = serde_json::to_string_pretty(&card["scores"]).unwrap_or_default();
            page += &format!("\n## Scores\n\n```json\n{scores}\n```\n");
        }
        page += &format!("\n## Use\n\n```python\n{}```\n", self.python);
        page += "\nPillow cuts 16-bit grayscale pictures off at 255 where twoview scales them: open such files with \
                 `Image.open(path).point(lambda v: v * (1 / 257) + 0.5).convert(\"L\")` first.\n";
        page += "\nThe whole configuration of the run is in the JSON file beside this page.\n";
        page
    }
}

/// What `scores.json` in the run directory says, word for word.
fn scores(run_dir: &RunDir) -> Option<Value> {
    let path = run_dir.path().join("scores.json");
    let text = fs::read_to_string(&path).ok()?;
    let scores = serde_json::from_str(&text);
    if let Err(error) = &scores {
        note(&format!("warning: left out of the card: {}: {error}", path.display()));
    }
    scores.ok()
}

fn torch_snippet(encoder: &EncoderConfig, naming: Naming, view: &View, file: &str) -> String {
    let EncoderConfig { arch, stem, width } = *encoder;
    let (name, block, blocks) = match arch {
        Arch::Resnet18 => ("resnet18", "BasicBlock", "[2, 2, 2, 2]"),
        Arch::Resnet34 => ("resnet34", "BasicBlock", "[3, 4, 6, 3]"),
        Arch::Resnet50 => ("resnet50", "Bottleneck", "[3, 4, 6, 3]"),
    };
    let with_timm = naming == Naming::Timm && width == 64;
    let build = if with_timm {
        format!("model = timm.create_model(\"{name}\", num_classes=0)\n")
    } else if width == 64 {
        format!("model = torchvision.models.{name}()\nmodel.fc = torch.nn.Identity()\n")
    } else {
        format!(
            "class Encoder(torchvision.models.ResNet):  # {width} channels in the first stage instead of 64\n\
             \x20   def _make_layer(self, block, planes, *args, **kwargs):\n\
             \x20       self.inplanes = {width} if planes == 64 else self.inplanes\n\
             \x20       return super()._make_layer(block, planes * {width} // 64, *args, **kwargs)\n\n\
             model = Encoder(torchvision.models.resnet.{block}, {blocks})\n\
             model.fc = torch.nn.Identity()\n\
             model.bn1 = torch.nn.BatchNorm2d({width})\n"
        )
    };
    let stem = match (stem, width) {
        (Stem::Imagenet, 64) => String::new(),
        (Stem::Imagenet, _) => {
            format!("model.conv1 = torch.nn.Conv2d(3, {width}, 7, stride=2, padding=3, bias=False)\n")
        }
        (Stem::Cifar, _) => format!(
            "model.conv1 = torch.nn.Conv2d(3, {width}, 3, padding=1, bias=False)\nmodel.maxpool = torch.nn.Identity()\n"
        ),
    };
    let timm = if with_timm { "import timm\n" } else { "" };
    let torchvision = if with_timm { "" } else { "import torchvision\n" };
    format!(
        "{timm}import torch\n{torchvision}from PIL import Image\nfrom safetensors.torch import load_file\n\
         from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor\n\n\
         {build}{stem}model.load_state_dict(load_file(\"{file}\"))\n\
         model.eval()  # without it the statistics of the batch are used, and changed\n\n\
         prepare = Compose([Resize({size}), CenterCrop({size}), ToTensor(), Normalize({mean:?}, {std:?})])\n\
         images = torch.stack([prepare(Image.open(path).convert(\"RGB\")) for path in paths])\n\
         with torch.inference_mode():\n    features = model(images)\n",
        size = view.size_px,
        mean = view.normalize.mean,
        std = view.normalize.std,
    )
}

fn onnx_snippet(view: &View, file: &str) -> String {
    format!(
        "import numpy\nimport onnxruntime\nfrom PIL import Image\n\n\
         def prepare(path, size={size}, mean={mean:?}, std={std:?}):\n\
         \x20   image = Image.open(path).convert(\"RGB\")\n\
         \x20   short, long = sorted(image.size)\n\
         \x20   sides = [size if side == short else size * long // short for side in image.size]\n\
         \x20   left, top = [round((side - size) / 2) for side in sides]\n\
         \x20   image = image.resize(sides, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))\n\
         \x20   pixels = numpy.asarray(image, dtype=numpy.float32) / 255\n\
         \x20   return ((pixels - numpy.float32(mean)) / numpy.float32(std)).transpose(2, 0, 1)\n\n\
         session = onnxruntime.InferenceSession(\"{file}\")\n\
         images = numpy.stack([prepare(path) for path in paths])\n\
         features, = session.run([\"features\"], {{\"images\": images}})\n",
        size = view.size_px,
        mean = view.normalize.mean,
        std = view.normalize.std,
    )
}

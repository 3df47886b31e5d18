//! SGD, AdamW and LARS against ten steps of their published implementations.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use twoview_optim::{LarsVariant, Optimizer, OptimizerConfig};

mod golden;

/// The tensors of the data by rank, each list in the order of their names.
#[derive(Module, Debug)]
struct Tensors {
    d1: Vec<Param<Tensor<1>>>,
    d2: Vec<Param<Tensor<2>>>,
    d4: Vec<Param<Tensor<4>>>,
}

/// Names and shapes of the tensors, as the optimizer is to see them.
type Shapes = BTreeMap<String, Vec<usize>>;

/// The shapes of the data. Where a case decays tensors of one dimension, which this crate spares, they are laid out as
/// one row: SGD and AdamW act on every entry alone, so the layout does not change what they should compute.
fn shapes(data: &Value, decay_1d: bool) -> Shapes {
    let shape = |value: &Value| -> Vec<usize> {
        let dims = golden::items(value).iter().map(|dim| dim.as_u64().expect("a dimension"));
        let dims: Vec<usize> = dims.map(|dim| usize::try_from(dim).expect("fits")).collect();
        if decay_1d && dims.len() == 1 { vec![1, dims[0]] } else { dims }
    };
    data["shapes"].as_object().expect("shapes").iter().map(|(name, value)| (name.clone(), shape(value))).collect()
}

fn tensor<const D: usize>(value: &Value, shape: &[usize]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(golden::numbers(value), shape.to_vec()), &Device::flex())
}

fn of_rank(shapes: &Shapes, rank: usize) -> impl Iterator<Item = (&String, &Vec<usize>)> {
    shapes.iter().filter(move |(_, shape)| shape.len() == rank)
}

fn module(values: &Value, shapes: &Shapes) -> Tensors {
    fn list<const D: usize>(values: &Value, shapes: &Shapes) -> Vec<Param<Tensor<D>>> {
        of_rank(shapes, D).map(|(name, shape)| Param::from_tensor(tensor(&values[name], shape))).collect()
    }
    let module = Tensors { d1: list(values, shapes), d2: list(values, shapes), d4: list(values, shapes) };
    assert_eq!(module.d1.len() + module.d2.len() + module.d4.len(), shapes.len(), "a tensor of another rank");
    module
}

fn gradients(module: &Tensors, values: &Value, shapes: &Shapes) -> GradientsParams {
    fn register<const D: usize>(
        grads: &mut GradientsParams,
        params: &[Param<Tensor<D>>],
        values: &Value,
        shapes: &Shapes,
    ) {
        for (param, (name, shape)) in params.iter().zip(of_rank(shapes, D)) {
            grads.register(param.id, tensor::<D>(&values[name], shape));
        }
    }
    let mut grads = GradientsParams::new();
    register(&mut grads, &module.d1, values, shapes);
    register(&mut grads, &module.d2, values, shapes);
    register(&mut grads, &module.d4, values, shapes);
    grads
}

#[track_caller]
fn check(module: &Tensors, want: &Value, guidance: &Value, shapes: &Shapes, what: &str) {
    fn list<const D: usize>(params: &[Param<Tensor<D>>]) -> Vec<Vec<f64>> {
        params.iter().map(|param| param.val().into_data().iter::<f64>().collect()).collect()
    }
    for (rank, got) in [(1, list(&module.d1)), (2, list(&module.d2)), (4, list(&module.d4))] {
        for ((name, _), got) in of_rank(shapes, rank).zip(got) {
            let want = golden::numbers(&want[name]);
            let largest = want.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
            let tolerance = 20.0 * guidance[name].as_f64().expect("guidance") + 1e-6 * largest;
            assert_eq!(got.len(), want.len(), "{what}, {name}");
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= tolerance, "{what}, {name}: got {got}, want {want} ± {tolerance:e}");
            }
        }
    }
}

/// The optimizer of a case, or nothing for a kind that this crate does not have.
fn optimizer(case: &Value) -> Option<Optimizer> {
    let config = &case["config"];
    let number = |key: &str| config[key].as_f64();
    let momentum = number("momentum").unwrap_or(0.0);
    let weight_decay = number("weight_decay").unwrap_or(0.0);
    let nesterov = config["nesterov"] == true;
    // The rate is given to each step; this one is only there to be valid.
    let lr_per_256 = 1.0;
    let config = match case["optimizer"].as_str().expect("a kind") {
        "sgd" => OptimizerConfig::Sgd { lr_per_256, momentum, nesterov, weight_decay },
        "adamw" => {
            let betas = golden::numbers(&config["betas"]).try_into().expect("two betas");
            OptimizerConfig::AdamW { lr: 1.0, betas, eps: number("eps").expect("eps"), weight_decay }
        }
        "lars" => {
            let trust = number("trust_coefficient").expect("trust_coefficient");
            let variant: LarsVariant = serde_json::from_value(config["variant"].clone()).expect("a known variant");
            assert!(variant != LarsVariant::Lightly || number("eps") == Some(1e-8), "the variant's own constant");
            OptimizerConfig::Lars { lr_per_256, momentum, nesterov, weight_decay, trust, variant }
        }
        _ => return None,
    };
    Some(config.init().expect("valid"))
}

#[test]
fn trajectories_agree_with_golden_data() {
    let data = golden::file("optim/trajectories.json");
    let mut n_cases = 0;
    for case in golden::items(&data["cases"]) {
        let Some(mut optimizer) = optimizer(case) else { continue };
        n_cases += 1;
        let shapes = shapes(&data, case["decay_1d"] == true);
        let mut moved = module(&data["init"], &shapes);
        let steps = golden::numbers(&case["lr"]).into_iter().zip(golden::items(&data["grads"]));
        for (step, ((lr, grads), want)) in steps.zip(golden::items(&case["trajectory"])).enumerate() {
            let grads = gradients(&moved, grads, &shapes);
            moved = optimizer.step(lr, moved, grads);
            let what = format!("{}, step {step}", case["name"]);
            check(&moved, want, &case["f32_guidance"]["max_abs_err_after_10"], &shapes, &what);
        }
        assert_eq!(optimizer.steps(), 10);
    }
    assert!(n_cases >= 8, "only {n_cases} cases");
}

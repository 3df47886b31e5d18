//! x
use burn::tensor::{Device, Distribution, Tensor};
use twoview_loss::{NtXentConfig, Objective, PairedViews};
fn main() {
    let device = Device::flex();
    for n in [128, 256, 512] {
        let z = || Tensor::<2>::random([n, 128], Distribution::Normal(0.0, 1.0), &device);
        let (z1, z2) = (z(), z());
        let o = NtXentConfig { temperature: 0.2 }.init().unwrap();
        for _ in 0..3 {
            let t = std::time::Instant::now();
            let c = o.contrast(PairedViews::new(z1.clone(), z2.clone()).unwrap());
            let a = t.elapsed();
            let t = std::time::Instant::now();
            let (x1, x2) = (z1.clone().autodiff().require_grad(), z2.clone().autodiff().require_grad());
            let l = o.forward(PairedViews::new(x1, x2).unwrap());
            let _g = l.backward();
            eprintln!("n {n} contrast {a:?} forward+backward {:?} loss {}", t.elapsed(), c.stats.loss);
        }
    }
}

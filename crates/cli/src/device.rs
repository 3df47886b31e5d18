//! `--device`: from a name to a device that exists, or to an error that says what to do.

use burn::tensor::Device;

use crate::{
    failure::{Exit, Failure},
    terminal::note,
};

/// Every device name, best first: the order in which `auto` looks.
const NAMES: [&str; 7] = ["cuda", "metal", "rocm", "vulkan", "wgpu", "flex", "ndarray"];

/// The device called `name`: one of [`NAMES`], with an index after a colon where several can be there, or `auto`.
///
/// # Errors
/// [`Exit::Usage`] where the name means nothing, was not compiled in, or names hardware that is not there. There is no
/// fallback: a device that was asked for and cannot be had is never replaced by another.
pub(crate) fn open(name: &str) -> Result<(String, Device), Failure> {
    if name == "auto" {
        // Software adapters answer to wgpu and vulkan on machines without a GPU and are far slower than flex there, so
        // those two are for asking, not for guessing.
        let candidates = NAMES.into_iter().filter(|&name| !matches!(name, "vulkan" | "wgpu") || !has_cpu_backend());
        for candidate in candidates {
            if let Some(Ok(device)) = find(candidate, 0) {
                note(&format!("device: {candidate} (auto)"));
                return Ok((candidate.to_owned(), device));
            }
        }
        return Err(Failure::new(
            Exit::Usage,
            "this build has no device that exists on this machine; build it with `--features flex`",
        ));
    }
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (
            kind,
            index.parse().map_err(|_| {
                Failure::new(Exit::Usage, format!("--device {name}: expected a number after the colon, got `{index}`"))
            })?,
        ),
        None => (name, 0),
    };
    if !NAMES.contains(&kind) {
        return Err(Failure::new(
            Exit::Usage,
            format!("--device {name}: there is no such device; expected auto or one of {}", NAMES.join(", ")),
        ));
    }
    match find(kind, index) {
        Some(Ok(device)) => Ok((name.to_owned(), device)),
        Some(Err(found)) => Err(Failure::new(
            Exit::Usage,
            format!(
                "--device {name}: this build can use {kind}, but found {found} such device(s) on this machine; \
                 install its driver, or use --device {}",
                fallback(kind)
            ),
        )),
        None => Err(Failure::new(
            Exit::Usage,
            format!(
                "--device {name}: this build was made without {kind}; it has {}. Build it in with \
                 `cargo build --release -p twoview --features {kind}`",
                compiled().join(", ")
            ),
        )),
    }
}

/// Every device name, with how many such devices are there; `None` where the build was made without it.
pub(crate) fn all() -> Vec<(&'static str, Option<usize>)> {
    let count = |name: &str| (0..).map_while(|index| find(name, index)?.ok()).count();
    NAMES.into_iter().map(|name| (name, is_compiled(name).then(|| count(name)))).collect()
}

/// The devices this build knows.
pub(crate) fn compiled() -> Vec<&'static str> {
    NAMES.into_iter().filter(|name| is_compiled(name)).collect()
}

fn is_compiled(name: &str) -> bool {
    match name {
        "flex" => cfg!(feature = "flex"),
        "ndarray" => cfg!(feature = "ndarray"),
        "wgpu" => cfg!(feature = "wgpu"),
        "vulkan" => cfg!(feature = "vulkan"),
        "metal" => cfg!(feature = "metal"),
        "cuda" => cfg!(feature = "cuda"),
        "rocm" => cfg!(feature = "rocm"),
        _ => false,
    }
}

fn has_cpu_backend() -> bool {
    is_compiled("flex") || is_compiled("ndarray")
}

fn fallback(missing: &str) -> &'static str {
    compiled().into_iter().rev().find(|name| *name != missing).unwrap_or("auto")
}

/// `None` where the backend is not compiled in, `Err(n)` where only `n` such devices are there.
#[allow(unused_variables, reason = "the index means something only to the backends that can have several devices")]
fn find(name: &str, index: usize) -> Option<Result<Device, usize>> {
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda", feature = "rocm"))]
    let among = |kind: burn::tensor::DeviceType| {
        let found: Vec<Device> = Device::enumerate(kind).into_iter().collect();
        found.get(index).cloned().ok_or(found.len())
    };
    #[allow(unused, reason = "an only device has the index 0")]
    let only = |device: fn() -> Device| if index == 0 { Ok(device()) } else { Err(1) };
    match name {
        #[cfg(feature = "flex")]
        "flex" => Some(only(Device::flex)),
        #[cfg(feature = "ndarray")]
        "ndarray" => {
            #[allow(deprecated, reason = "kept as a feature for those who ask for it")]
            let device = Device::ndarray;
            Some(only(device))
        }
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(among(burn::tensor::DeviceType::Wgpu)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(among(burn::tensor::DeviceType::Vulkan)),
        #[cfg(feature = "metal")]
        "metal" => Some(among(burn::tensor::DeviceType::Metal)),
        #[cfg(feature = "cuda")]
        "cuda" => Some(among(burn::tensor::DeviceType::Cuda)),
        #[cfg(feature = "rocm")]
        "rocm" => Some(among(burn::tensor::DeviceType::Rocm)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_was_not_compiled_names_the_feature() {
        if is_compiled("cuda") {
            return;
        }
        let failure = open("cuda").expect_err("no cuda in this build");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.error.to_string().contains("--features cuda"), "{}", failure.error);
    }

    #[test]
    fn nonsense_lists_what_there_is() {
        for name in ["gpu", "flex:x", "flex:3", ""] {
            let failure = open(name).expect_err(name);
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.error.to_string().contains("--device"), "{}", failure.error);
        }
    }
}

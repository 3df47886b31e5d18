//! Every picture format, by content.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../pixels/tests/hostile_bytes/decode_target.rs"]
mod decode_target;

fuzz_target!(|bytes: &[u8]| {
    decode_target::decode_target(bytes);
});

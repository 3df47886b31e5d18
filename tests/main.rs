//! Tests of the whole: the program as its users run it, and the rules of the house.

#[path = "cli.rs"]
mod cli;
#[path = "exchange.rs"]
mod exchange;
#[cfg(feature = "fetch")]
#[path = "fetch.rs"]
mod fetch;
#[cfg(feature = "fetch")]
#[path = "../crates/fetch/tests/fetch/http_server.rs"]
#[allow(dead_code, reason = "the tests of the crate misbehave in more ways")]
mod http_server;
#[cfg(all(unix, feature = "live"))]
#[path = "live.rs"]
mod live;
#[path = "presets.rs"]
mod presets;
#[path = "side_by_side.rs"]
mod side_by_side;
#[path = "tidy.rs"]
mod tidy;
#[path = "using_a_run.rs"]
mod using_a_run;

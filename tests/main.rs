//! Tests of the whole: the program as its users run it, and the rules of the house.

#[path = "cli.rs"]
mod cli;
#[path = "presets.rs"]
mod presets;
#[path = "tidy.rs"]
mod tidy;

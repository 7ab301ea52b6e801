//! The podspawn command.
fn main() {}

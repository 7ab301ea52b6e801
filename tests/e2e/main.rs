//! End-to-end tests: a real sshd, the real clients, a real registry, real images.
//!
//! `scripts/test` prepares all of that and runs this program as an ordinary user; on its own
//! it says so and does nothing. Each module is one topic, each function one test.

mod agent;
mod audit;
mod closed;
mod commands;
mod disconnect;
mod environment;
mod escape;
mod fidelity;
mod forward;
mod gateway;
mod identity;
mod images;
mod lifecycle;
mod metrics;
mod modes;
mod network;
mod quoting;
mod registries;
mod services;
mod session;
mod single_id;
mod support;
mod transfer;
mod tty;
mod upkeep;
mod verify;
mod workspace;
mod x11;

use libtest_mimic::{Arguments, Trial};
use support::{host, setup};

fn main() {
    let arguments = Arguments::from_args();
    let Some(setup) = setup::read() else { return };
    let mut trials = Vec::new();
    let mut add = |topic: &str, tests: support::Tests| {
        for (name, test) in tests {
            trials.push(support::trial(format!("{topic}::{name}"), test));
        }
    };
    if setup.root.is_some() {
        add("forward", forward::all());
    } else if setup.single_id {
        add("single_id", single_id::all());
        add("gateway", gateway::all());
        add("workspace", workspace::all());
    } else if setup.outside.is_some() {
        add("network", network::all());
        add("services", services::all());
        add("gateway", gateway::outside());
    } else {
        add("session", session::all());
        add("quoting", quoting::all());
        add("closed", closed::all());
        add("identity", identity::all());
        add("escape", escape::all());
        if setup.ttys {
            add("tty", tty::all());
            add("commands", commands::with_terminals());
        } else {
            support::say(
                "skipped: tty: an sshd that is not root gets no terminals on this machine",
            );
        }
        add("environment", environment::all());
        add("agent", agent::all());
        add("x11", x11::all());
        add("images", images::all());
        add("fidelity", fidelity::all());
        add("registries", registries::all());
        add("upkeep", upkeep::all());
        add("verify", verify::all());
        add("workspace", workspace::all());
        add("lifecycle", lifecycle::all());
        add("modes", modes::all());
        add("disconnect", disconnect::all());
        add("commands", commands::all());
        add("audit", audit::all());
        add("metrics", metrics::all());
        for (image, tests) in transfer::all() {
            add(&format!("transfer::{image}"), tests);
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().collect::<Vec<Trial>>());
    host::end_shared();
    conclusion.exit();
}

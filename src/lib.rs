//! The podspawn command line.
//!
//! What the verbs share: the configuration, the exit status, the terminal. Only
//! this package reads the environment and writes to standard output and error;
//! images and pods are the business of `podspawn-images` and `podspawn-runtime`.

pub mod account;
mod audited;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod exit;
pub mod guest;
pub mod login_shell;
pub mod original_command;
pub mod output;
pub mod own_sshd;
mod pasta;
pub mod podfile;
mod project;
pub mod registries;
pub mod server;
mod services;
pub mod session;
mod spec;
pub mod starter;
pub mod verify;
mod volumes;
mod workspace;
mod yaml;

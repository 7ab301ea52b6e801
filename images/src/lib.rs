//! Images for podspawn: references, registries, and the store of unpacked layers.
//!
//! Synchronous for the caller. Nothing here prints, exits, or reads the environment; what is needed
//! of the process (its user namespace, its ids) the caller has arranged before.

pub mod archive;
pub mod cache;
pub mod credentials;
pub mod digest;
pub mod document;
pub mod health;
pub mod layer;
pub mod limits;
pub mod login;
mod memory;
pub mod platform;
pub mod policy;
pub mod progress;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod store;
mod tar;

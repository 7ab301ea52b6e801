//! Capabilities by name (`capabilities(7)`).

pub use caps::Capability;

/// Every capability that this version knows.
pub fn all() -> impl Iterator<Item = Capability> {
    caps::all().into_iter()
}

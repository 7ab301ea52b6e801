//! What helpers know and a status request is answered with.
//!
//! The supervisor is one thread: a shared cell is enough.

use std::cell::RefCell;
use std::rc::Rc;

use crate::pod::ServiceStatus;

/// The facts.
#[derive(Debug, Default)]
pub struct Facts {
    /// How the way out is, in a few words.
    pub network: String,
    /// Whether it is not known yet whether there will be one.
    pub network_comes_up: bool,
    /// Every service.
    pub services: Vec<ServiceStatus>,
}

impl Facts {
    /// Whether something has not come up yet for the first time.
    #[must_use]
    pub fn comes_up(&self) -> bool {
        self.network_comes_up || self.services.iter().any(|s| !s.was_ready)
    }
}

/// Where they are.
pub type Board = Rc<RefCell<Facts>>;

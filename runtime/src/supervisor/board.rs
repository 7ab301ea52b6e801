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
    /// Every service.
    pub services: Vec<ServiceStatus>,
}

/// Where they are.
pub type Board = Rc<RefCell<Facts>>;

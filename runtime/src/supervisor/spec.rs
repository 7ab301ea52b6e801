//! What a pod is made of, as the session hands it to the supervisor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;

use super::{HomeChoice, ServiceSpec, Terms, Workspace};
use crate::cgroup;
use crate::idmap::IdMap;
use crate::limits::Limits;
use crate::network::Network;
use crate::pod::PodPaths;
use crate::record::Records;
use crate::security::Security;

/// Everything that is needed to create a pod.
#[derive(Debug)]
pub struct PodSpec {
    /// Name and places.
    pub paths: PodPaths,
    /// Ids of its user namespace.
    pub map: IdMap,
    /// What it runs.
    pub image: PodImage,
    /// The guest binary on the host.
    pub guest: PathBuf,
    /// Directories of the host's terminfo, shown inside.
    pub terminfo: Vec<PathBuf>,
    /// The user who logged in.
    pub login: Login,
    /// Variables of sessions beside the image's, `NAME=value`.
    pub env: Vec<String>,
    /// Where sessions begin, if not at home.
    pub workspace: Option<Workspace>,
    /// Containers beside the dev container.
    pub services: Vec<ServiceSpec>,
    /// What it can reach.
    pub network: Network,
    /// Who sessions are inside.
    pub user: UserChoice,
    /// Where what happens to it is written down.
    pub records: Records,
    /// Shells to try for the session user, best first.
    pub shells: Vec<PathBuf>,
    /// What its programs may do.
    pub security: Security,
    /// When it ends.
    pub terms: Terms,
    /// The user, as their systemd on the host knows them.
    pub host_user: cgroup::User,
    /// What it may use.
    pub limits: Limits,
    /// What the session user's home is.
    pub home: HomeChoice,
    /// Whether what is written to its root is kept for the next pod of its name.
    pub keep_root: bool,
}

impl PodSpec {
    /// What keeps its images in the store.
    pub(super) fn leases(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let services = self.services.iter().map(|service| &service.image);
        let images = [&self.image].into_iter().chain(services);
        images.filter_map(|image| image.lease.as_ref().map(AsFd::as_fd))
    }
}

/// An unpacked image.
#[derive(Debug)]
pub struct PodImage {
    /// Its reference, for people.
    pub reference: String,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// Lower directories of the overlay, lowest first.
    pub lowers: Vec<PathBuf>,
    /// Held as long as the pod lives, so that the layers are not collected.
    pub lease: Option<OwnedFd>,
}

/// A user of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
}

/// Who a session is inside the container (configuration key `user`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UserChoice {
    /// The login user, with their own id.
    #[default]
    Login,
    /// The user that the image's configuration names.
    Image,
    /// Root of the container.
    Root,
}

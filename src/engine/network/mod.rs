//! Networks of containers: bridges of this host with addresses, names and published ports, and what else there is.
//!
//! # Layout
//! - [`wanted`]: what was asked for, as the record keeps it; [`ports`], [`address`]: parts of it. Pure.
//! - [`definition`]: which networks are there? [`claim`]: which address has which container?
//! - [`live`]: the network of a container that runs, from its start to its end.
//! - [`bridge`]: a network and its containers' devices; [`link`]: the messages to the kernel.
//! - [`rules`]: nftables; [`reserve`]: is a port of the host free, and who has it?
//! - [`names`]: /etc/hosts and resolv.conf; [`resolver`]: the process that answers, in the words of [`dns`].
//! - [`user`]: pasta and slirp4netns, without root; [`world`]: where bridges are, without root.
//! - [`forward`]: the process that answers at ports which the kernel cannot lead into a container.
//!
//! Whatever the kernel forgets by itself is left to it: a container's device goes with its namespace, which nothing
//! but its processes and its monitor hold; a reserved port goes with the monitor's socket; locks with who has them.
//! What is left then, a claim and the elements of maps, is removed by the resolver at once, or by the next start.

pub mod address;
pub mod bridge;
pub mod claim;
pub mod definition;
pub mod dns;
pub mod forward;
pub mod link;
pub mod live;
pub mod names;
pub mod ports;
pub mod reserve;
pub mod resolver;
pub mod rules;
pub mod user;
pub mod wanted;
pub mod world;

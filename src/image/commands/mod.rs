//! One verb, one file: its options as typed, and what it does.

pub mod commit;
pub mod fsck;
pub mod gc;
pub mod history;
pub mod import;
pub mod inspect;
pub mod list;
pub mod load;
pub mod prune;
pub mod rm;
pub mod save;
pub mod tag;
pub mod unpack;

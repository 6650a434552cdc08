//! One verb, one file: its options as typed, and what it does.

pub mod commit;
pub mod fsck;
pub mod gc;
pub mod history;
pub mod import;
pub mod inspect;
pub mod list;
pub mod load;
pub mod login;
pub mod prune;
pub mod pull;
pub mod push;
pub mod rm;
pub mod save;
pub mod tag;
pub mod tar;
pub mod unpack;
pub mod untar;

/// How many things at once: one at least, and no more than a registry puts up with.
fn jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(jobs @ 1..=64) => Ok(jobs),
        _ => Err("a number from 1 to 64".to_owned()),
    }
}

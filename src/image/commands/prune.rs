//! `prune`: removes images that nobody needs.

use super::gc;
use crate::clock;
use crate::idmap;
use crate::image::cli::Global;
use crate::image::show;
use crate::image::store::{Listed, Store};
use anyhow::{Context, Result, bail};
use clap::Args;

/// Remove images without a name, or all that no bundle uses
#[derive(Debug, Args)]
pub struct Prune {
    /// Images with a name too
    #[arg(short, long)]
    all: bool,
    /// until=TIME: older than that, as RFC 3339 or a span (24h, 30m, 7d)
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask: nothing is asked, taken for docker's sake
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    pub fn run(&self, global: &Global) -> Result<()> {
        let root = global.root()?;
        let filters = self.filter.iter().map(|text| until(text));
        let until = filters.collect::<Result<Vec<i64>>>()?.into_iter().min();
        idmap::enter()?;
        let store = Store::open(&root)?;
        let leases = store.leases()?;
        for listed in store.list()? {
            let used = leases
                .iter()
                .any(|lease| lease.manifest == listed.descriptor.digest);
            if used || !(self.all || listed.names.is_empty()) || !is_older(&listed, until) {
                continue;
            }
            store.untag(&listed.descriptor.digest.to_string(), true)?;
            let names = listed
                .names
                .iter()
                .map(|name| format!("Untagged: {name}\n"));
            show::print(
                &(names.collect::<String>() + &format!("Deleted: {}\n", listed.descriptor.digest)),
            )?;
        }
        show::print(&gc::told(&gc::collect_unless_busy(store)?))
    }
}

fn is_older(listed: &Listed, until: Option<i64>) -> bool {
    let created = listed
        .image
        .as_ref()
        .ok()
        .and_then(|image| clock::parse(image.config.created.as_deref()?));
    until.is_none_or(|until| created.unwrap_or(0) < until)
}

/// A point in time, or how long ago.
fn until(filter: &str) -> Result<i64> {
    let context = || format!("--filter {filter}: is not until=TIME");
    let value = filter.strip_prefix("until=").with_context(context)?;
    if let Some(time) = clock::parse(value) {
        return Ok(time);
    }
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: i64 = value[..digits].parse().with_context(context)?;
    let unit = match &value[digits..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => bail!("{}", context()),
    };
    Ok(clock::seconds().saturating_sub(number.saturating_mul(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_is_a_time_or_a_span() {
        assert_eq!(until("until=1970-01-01T00:00:10Z").unwrap(), 10);
        let ago = clock::seconds() - until("until=2h").unwrap();
        assert!((7200..7203).contains(&ago));
        for wrong in ["until=", "until=x", "until=5", "label=x"] {
            let why = format!("{:#}", until(wrong).unwrap_err());
            assert!(
                why.starts_with(&format!("--filter {wrong}: is not until=TIME")),
                "{why}"
            );
        }
    }
}

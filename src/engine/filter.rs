//! Which of a list was asked for? docker's `--filter key=value`: all keys must be met, each by one of its values.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Filters {
    by_key: BTreeMap<String, Vec<String>>,
}

impl Filters {
    pub fn parse(typed: &[String], known: &[&str]) -> Result<Filters> {
        let mut filters = Filters::default();
        for text in typed {
            let (key, value) = text
                .split_once('=')
                .with_context(|| format!("--filter {text:?}: write KEY=VALUE"))?;
            ensure!(
                known.contains(&key),
                "--filter {text:?}: known keys are {}",
                known.join(", ")
            );
            let values = filters.by_key.entry(key.to_owned()).or_default();
            values.push(value.to_owned());
        }
        Ok(filters)
    }

    pub fn each(&self) -> impl Iterator<Item = (&str, &[String])> {
        let each = self.by_key.iter();
        each.map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    pub fn first(&self, key: &str) -> Option<&str> {
        Some(self.by_key.get(key)?.first()?.as_str())
    }

    pub fn has(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// Is `key` not asked for, or `is` met by one of its values?
    pub fn allow(&self, key: &str, is: impl Fn(&str) -> bool) -> bool {
        let values = self.by_key.get(key);
        values.is_none_or(|values| values.iter().any(|value| is(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_met_by_one_of_its_values() {
        let typed = ["name=a", "name=b", "id=1"].map(str::to_owned);
        let filters = Filters::parse(&typed, &["name", "id"]).unwrap();
        assert!(filters.allow("name", |value| value == "b"));
        assert!(!filters.allow("id", |value| value == "2"));
        assert!(filters.allow("label", |_| false));
        for bad in ["name", "nmae=x"] {
            assert!(
                Filters::parse(&[bad.to_owned()], &["name"]).is_err(),
                "{bad}"
            );
        }
    }
}

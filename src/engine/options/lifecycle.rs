//! Options that say how a container is called, kept, stopped, started again, logged and asked after its health.

use crate::duration;
use crate::engine::config;
use crate::engine::record::{HealthCheck, LogChoice, LogDriver, Record, Restart};
use crate::signal;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Lifecycle {
    /// [default: one is made up]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    /// Remove the container when it has ended
    #[arg(long)]
    pub rm: bool,
    /// KEY or KEY=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// A file of such lines
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Write the container's id to a file that is not there yet
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Another OCI runtime: crun, runc [default: sc-runtime]
    #[arg(long, value_name = "PROGRAM")]
    pub runtime: Option<PathBuf>,
    /// When it is started again: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: String,
    /// What `sc stop` sends [default: what the image says, or TERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds before `sc stop` kills it [default: 10]
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// Where output is kept
    #[arg(long, value_name = "DRIVER", value_enum, default_value_t)]
    log_driver: LogDriver,
    /// max-size=SIZE, max-file=NUMBER
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
    #[command(flatten)]
    health: Health,
    /// A small init in front of the program: it waits for orphans, and hands signals on
    #[arg(long)]
    pub init: bool,
}

#[derive(Debug, Args)]
struct Health {
    /// A command of its shell that tells whether it is well
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Between two of them [default: 30s]
    #[arg(long, value_name = "TIME")]
    health_interval: Option<String>,
    /// Longer is a failure [default: 30s]
    #[arg(long, value_name = "TIME")]
    health_timeout: Option<String>,
    /// Failures in a row that are an illness [default: 3]
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// Failures in the beginning that are none [default: 0s]
    #[arg(long, value_name = "TIME")]
    health_start_period: Option<String>,
    /// Not even the image's
    #[arg(long, conflicts_with = "health_cmd")]
    no_healthcheck: bool,
}

impl Lifecycle {
    /// What the record is to say.
    pub fn note(&self, record: &mut Record) -> Result<()> {
        record.name = self.name.clone();
        record.remove = self.rm;
        record.labels = self.labels()?;
        record.restart = restart(&self.restart)?;
        ensure!(
            !self.rm || record.restart == Restart::No,
            "--rm and --restart {}: it cannot be removed and started again",
            self.restart
        );
        if let Some(signal) = &self.stop_signal {
            signal::number(signal).context("--stop-signal")?;
            record.stop_signal = signal.clone();
        }
        record.stop_timeout = self.stop_timeout;
        record.log = self.log()?;
        Ok(())
    }

    fn labels(&self) -> Result<BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        let mut add = |label: &str| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            ensure!(!key.is_empty(), "--label {label:?}: a key is missing");
            labels.insert(key.to_owned(), value.to_owned());
            Ok(())
        };
        for path in &self.label_file {
            let text = std::fs::read_to_string(path);
            let text = text.with_context(|| format!("--label-file {}", path.display()))?;
            let lines = text.lines().map(str::trim);
            lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .try_for_each(&mut add)?;
        }
        self.label.iter().try_for_each(|label| add(label))?;
        Ok(labels)
    }

    fn log(&self) -> Result<LogChoice> {
        let mut log = LogChoice {
            driver: self.log_driver,
            max_size: 0,
            max_file: 1,
        };
        for option in &self.log_opt {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let name = || format!("--log-opt {option}");
            ensure!(
                self.log_driver == LogDriver::JsonFile,
                "{}: {} has no options",
                name(),
                self.log_driver.name()
            );
            match key {
                "max-size" if value == "-1" => log.max_size = 0,
                "max-size" => log.max_size = config::bytes(value).with_context(name)? as u64,
                "max-file" => {
                    let number = value.parse().ok().filter(|number| *number > 0);
                    log.max_file = number.with_context(|| format!("{}: 1 or more", name()))?;
                }
                _ => bail!("{}: known are max-size and max-file", name()),
            }
        }
        ensure!(
            log.max_file == 1 || log.max_size > 0,
            "--log-opt max-file: only with max-size are there several files"
        );
        Ok(log)
    }

    /// What was typed, over what the image says.
    pub fn health(&self, image: Option<&serde_json::Value>) -> Result<Option<HealthCheck>> {
        let typed = &self.health;
        if typed.no_healthcheck {
            return Ok(None);
        }
        let shell = |command: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()];
        let command = match (&typed.health_cmd, image) {
            (Some(command), _) if command == "none" => return Ok(None),
            (Some(command), _) => shell(command),
            (None, Some(image)) => {
                let words = image["Test"].as_array().into_iter().flatten();
                let words: Vec<&str> = words.filter_map(|word| word.as_str()).collect();
                match words.as_slice() {
                    ["CMD", words @ ..] => words.iter().map(|word| (*word).to_owned()).collect(),
                    ["CMD-SHELL", command] => shell(command),
                    _ => return Ok(None),
                }
            }
            (None, None) => return Ok(None),
        };
        let time = |option: &str, typed: &Option<String>, key: &str, default: u64| match typed {
            Some(text) => {
                let time = duration::parse(text).with_context(|| option.to_owned())?;
                Ok(time.as_nanos() as u64)
            }
            None => {
                let said = image.and_then(|image| image[key].as_u64());
                Ok::<u64, anyhow::Error>(said.filter(|nanos| *nanos > 0).unwrap_or(default))
            }
        };
        const SECOND: u64 = 1_000_000_000;
        let check = HealthCheck {
            command,
            interval: time(
                "--health-interval",
                &typed.health_interval,
                "Interval",
                30 * SECOND,
            )?,
            timeout: time(
                "--health-timeout",
                &typed.health_timeout,
                "Timeout",
                30 * SECOND,
            )?,
            start_period: time(
                "--health-start-period",
                &typed.health_start_period,
                "StartPeriod",
                0,
            )?,
            retries: typed.health_retries.unwrap_or_else(|| {
                let said = image.and_then(|image| image["Retries"].as_u64());
                said.map_or(3, |retries| retries as u32).max(1)
            }),
        };
        ensure!(
            check.interval > 0 && check.timeout > 0 && check.retries > 0,
            "--health-interval, --health-timeout and --health-retries: more than nothing"
        );
        Ok(Some(check))
    }
}

/// `--restart`
pub fn restart(text: &str) -> Result<Restart> {
    let (policy, times) = match text.split_once(':') {
        Some((policy, times)) => (policy, Some(times)),
        None => (text, None),
    };
    Ok(match (policy, times) {
        ("no" | "", None) => Restart::No,
        ("always", None) => Restart::Always,
        ("unless-stopped", None) => Restart::UnlessStopped,
        ("on-failure", None) => Restart::OnFailure(0),
        ("on-failure", Some(times)) => {
            let times = times.parse();
            Restart::OnFailure(times.with_context(|| format!("--restart {text}: how often?"))?)
        }
        _ => bail!("--restart {text:?}: it is no, on-failure[:TIMES], always or unless-stopped"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_dockers() {
        for (text, expected) in [
            ("no", Some(Restart::No)),
            ("always", Some(Restart::Always)),
            ("on-failure", Some(Restart::OnFailure(0))),
            ("on-failure:3", Some(Restart::OnFailure(3))),
            ("unless-stopped", Some(Restart::UnlessStopped)),
            ("always:3", None),
            ("on-failure:x", None),
            ("never", None),
        ] {
            assert_eq!(restart(text).ok(), expected, "{text}");
        }
    }
}

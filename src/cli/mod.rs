//! The subcommands of the command line but `serve` and `check`.

pub mod backup;
pub mod call;
pub mod demo;
pub mod fleet;
pub mod init;
pub mod passwd;
pub mod replay;
pub mod signals;

use std::time::Duration;

/// Reads a number of seconds, with or without a fraction, more than 0 and at most ten days.
fn seconds(text: &str) -> Result<Duration, String> {
    let possible = |seconds: &f64| *seconds > 0.0 && *seconds <= 864_000.0;
    let seconds = text.parse().ok().filter(possible);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "not a number of seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    enum Line {
        Call(Box<call::CallArgs>),
        Fleet(Box<fleet::FleetArgs>),
    }

    #[test]
    fn command_lines_are_read_or_explained() {
        let check = |line: &str, error: &str| {
            let read = Line::try_parse_from(line.split_whitespace()).map(drop);
            let read = read.map_err(|error| error.to_string());
            match error {
                "" => assert_eq!(read, Ok(()), "{line}"),
                _ => assert!(read.is_err_and(|text| text.contains(error)), "{line}: {error}"),
            }
        };
        check("tr50d call diag.ping --url mqtt://k:t@h", "");
        check("tr50d call session.list {} --url http://a@b.c:p@h --timeout 0.5", "");
        check("tr50d call diag.ping", "--url <URL>");
        check("tr50d call diag.ping --url h:1", "the URL must begin with");
        check("tr50d call diag.ping --url tcp://h --timeout 0", "not a number of seconds");
        check("tr50d fleet --url mqtt://:t@h --url tcp://:t@h --devices 5 --json --idle", "");
        check("tr50d fleet --url mqtt://:t@h --mqtt-version mix --client mix --qos 1", "");
        check("tr50d fleet --url mqtt://:t@h --source-addresses 127.0.0.1-127.0.0.9", "");
        check("tr50d fleet", "--url <URL>");
        check("tr50d fleet --url mqtt://h --qos 2", "2 is not in 0..=1");
        check("tr50d fleet --url mqtt://h --mqtt-version 4", "not 3.1, 3.1.1, 5 or mix");
        check("tr50d fleet --url mqtt://h --rate=-1", "not 0 or a rate");
        check("tr50d fleet --help", "ulimit -n");
    }
}

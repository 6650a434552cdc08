//! Which addresses does a subnet have? Pure.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// `10.89.0.0/24`; the bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The subnet that `address` is in.
    pub fn around(address: IpAddr, prefix: u8) -> Result<Subnet> {
        ensure!(prefix <= bits(address), "no prefix of {address}: {prefix}");
        let mut subnet = Subnet {
            base: address,
            prefix,
        };
        subnet.base = with_number(address, number(address) & !subnet.host_mask());
        Ok(subnet)
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn is_v4(&self) -> bool {
        self.base.is_ipv4()
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Subnet::around(address, self.prefix).is_ok_and(|around| around == *self)
    }

    pub fn overlaps(&self, other: &Subnet) -> bool {
        let wide = if self.prefix < other.prefix {
            self
        } else {
            other
        };
        self.is_v4() == other.is_v4() && wide.contains(self.base) && wide.contains(other.base)
    }

    /// The address with this number in the subnet.
    pub fn host(&self, host: u128) -> IpAddr {
        with_number(self.base, number(self.base) | host & self.host_mask())
    }

    pub fn host_of(&self, address: IpAddr) -> u128 {
        number(address) & self.host_mask()
    }

    /// The last number that a host may have: what follows, for IPv4, is the broadcast address.
    pub fn last_host(&self) -> u128 {
        self.host_mask() - u128::from(self.is_v4())
    }

    fn host_mask(&self) -> u128 {
        let wide = bits(self.base) - self.prefix;
        1u128
            .checked_shl(wide.into())
            .map_or(u128::MAX, |one| one - 1)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn with_number(family: IpAddr, number: u128) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

impl FromStr for Subnet {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Subnet> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            Some((address.parse::<IpAddr>().ok()?, prefix.parse().ok()?))
        });
        let (address, prefix) =
            parsed.with_context(|| format!("{text:?} is no subnet like 10.1.2.0/24"))?;
        let subnet = Subnet::around(address, prefix)?;
        ensure!(
            subnet.base == address,
            "{text:?} has bits behind its prefix: the subnet is {subnet}"
        );
        Ok(subnet)
    }
}

impl TryFrom<String> for Subnet {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Subnet> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        write!(to, "{}/{}", self.base, self.prefix)
    }
}

/// The MAC address that goes with an IPv4 address: who gets the address later is found where it was.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x53, a, b, c, d]
}

pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .filter(|byte| byte.len() == 2)
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    let mac: Option<[u8; 6]> = bytes.try_into().ok();
    let mac = mac.filter(|_| text.len() == 17);
    let mac = mac.with_context(|| format!("{text:?} is no address like 02:00:00:00:00:01"))?;
    ensure!(
        mac[0] & 1 == 0,
        "{text} is a multicast address: its first number must be even"
    );
    Ok(mac)
}

pub fn show_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_are_numbered_from_the_base() {
        let (v4, v6) = (subnet("10.89.0.0/23"), subnet("fd00:1:2:3::/64"));
        assert_eq!(v4.host(258).to_string(), "10.89.1.2");
        assert_eq!(v6.host(258).to_string(), "fd00:1:2:3::102");
        assert_eq!(
            (v4.last_host(), v6.last_host()),
            (510, u128::from(u64::MAX))
        );
        assert_eq!(v4.host_of("10.89.1.2".parse().unwrap()), 258);
    }

    #[test]
    fn overlapping_is_having_an_address_in_common() {
        for (a, b, expected) in [
            ("10.89.0.0/24", "10.89.0.128/25", true),
            ("10.89.0.0/24", "10.0.0.0/8", true),
            ("10.89.0.0/24", "10.89.1.0/24", false),
            ("0.0.0.0/0", "10.89.1.0/24", true),
            ("::/0", "10.89.1.0/24", false),
        ] {
            assert_eq!(subnet(a).overlaps(&subnet(b)), expected, "{a} {b}");
            assert_eq!(subnet(b).overlaps(&subnet(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for bad in [
            "10.1.2.3/24",
            "10.1.2.0",
            "10.1.2.0/33",
            "x/8",
            "fd00::/129",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mac_address_is_six_numbers_and_of_one() {
        assert_eq!(
            parse_mac("02:53:0a:59:00:02").unwrap(),
            mac_of([10, 89, 0, 2].into())
        );
        assert_eq!(show_mac(mac_of([10, 89, 0, 2].into())), "02:53:0a:59:00:02");
        for bad in [
            "",
            "02:53",
            "01:00:00:00:00:00",
            "02:53:0a:59:00:0g",
            "02:53:0a:59:00:02:03",
        ] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }
}

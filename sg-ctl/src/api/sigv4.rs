//! Signature version 4 in its header form, checked as AWS describes it: what the client says that it
//! signed is put together again and signed with its secret.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, DATE};
use axum::http::request::Parts;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use sha2::{Digest as _, Sha256};

use super::fault::{Fault, Result};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The most that a client's clock may differ.
const SKEW: Duration = Duration::from_secs(300);

/// Longer ones are no request of a client.
const LONGEST_AUTHORIZATION: usize = 4096;

/// What RFC 3986 does not reserve is left as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What a request is signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) key_id: String,
    pub(super) date: String,
    pub(super) region: String,
    pub(super) service: String,
}

/// A request's claim to be signed.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) scope: Scope,
    headers: Vec<String>,
    signature: Vec<u8>,
    time: String,
}

fn incomplete(why: impl std::fmt::Display) -> Fault {
    let message = format!("{why}; sign the request with signature version 4 in its header form");
    Fault::new("IncompleteSignature", message)
}

/// What EC2 tells whoever has an unknown key or a wrong secret, alike.
fn refuse() -> Fault {
    Fault::with_status(
        StatusCode::UNAUTHORIZED,
        "AuthFailure",
        "AWS was not able to validate the provided access credentials; `sg-ctl api key list` shows \
         the access keys there are, and the request must be signed with the secret of one",
    )
}

impl Claim {
    /// Reads what the request says of its signature, and refuses one of another time.
    pub(super) fn read(parts: &Parts, now: SystemTime) -> Result<Self> {
        let mut given = parts.headers.get_all(AUTHORIZATION).into_iter();
        let (Some(header), None) = (given.next(), given.next()) else {
            return Err(Fault::with_status(
                StatusCode::FORBIDDEN,
                "MissingAuthenticationToken",
                "The request must have one Authorization header with an access key and a signature",
            ));
        };
        let text = header
            .to_str()
            .ok()
            .filter(|text| text.len() <= LONGEST_AUTHORIZATION)
            .and_then(|text| text.trim().strip_prefix(ALGORITHM))
            .ok_or_else(|| incomplete("The Authorization header is not of AWS4-HMAC-SHA256"))?;
        let (mut credential, mut headers, mut signature) = (None, None, None);
        for part in text.split(',') {
            match part.trim().split_once('=') {
                Some(("Credential", value)) => credential = Some(value),
                Some(("SignedHeaders", value)) => headers = Some(value),
                Some(("Signature", value)) => signature = Some(value),
                _ => return Err(incomplete("The Authorization header has an unknown part")),
            }
        }
        let missing = |what| incomplete(format!("The Authorization header lacks its {what}"));
        let scope = read_scope(credential.ok_or_else(|| missing("Credential"))?)?;
        let headers = headers.ok_or_else(|| missing("SignedHeaders"))?;
        let headers: Vec<String> = headers.split(';').map(str::to_ascii_lowercase).collect();
        let signature = signature.ok_or_else(|| missing("Signature"))?;
        let signature = from_hex(signature).ok_or_else(|| missing("Signature of 64 digits"))?;
        let names: BTreeSet<&String> = headers.iter().collect();
        let is_signed = |name: &str| headers.iter().any(|signed| signed == name);
        if names.len() != headers.len() {
            return Err(incomplete("SignedHeaders has a header twice"));
        }
        if !is_signed("host") {
            return Err(incomplete("The header host is not signed"));
        }
        let (name, time) = match parts.headers.get("x-amz-date") {
            Some(time) => ("x-amz-date", Some(time)),
            None => (DATE.as_str(), parts.headers.get(DATE)),
        };
        if !is_signed(name) {
            return Err(incomplete(format!("The header {name} is not signed")));
        }
        let time = time
            .and_then(|time| read_time(time.to_str().ok()?.trim()))
            .ok_or_else(|| incomplete("The header x-amz-date has no time like 20150830T123600Z"))?;
        check_clock(time, now)?;
        let zoned = time.to_zoned(TimeZone::UTC);
        let claim = Self {
            scope,
            headers,
            signature,
            time: zoned.strftime("%Y%m%dT%H%M%SZ").to_string(),
        };
        if !claim.time.starts_with(&claim.scope.date) {
            return Err(incomplete(
                "The credential's date is not that of the request",
            ));
        }
        Ok(claim)
    }

    /// What is told where there is no such key. Each service has its own words.
    pub(super) fn refuse_key(&self) -> Fault {
        match self.scope.service.as_str() {
            "sts" => Fault::with_status(
                StatusCode::FORBIDDEN,
                "InvalidClientTokenId",
                "The security token included in the request is invalid; `sg-ctl api key list` shows \
                 the access keys there are",
            ),
            _ => refuse(),
        }
    }

    /// What is told where the key's secret has not signed the request.
    pub(super) fn refuse_signature(&self) -> Fault {
        match self.scope.service.as_str() {
            "sts" => Fault::with_status(
                StatusCode::FORBIDDEN,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. Check \
                 your AWS Secret Access Key and signing method.",
            ),
            _ => refuse(),
        }
    }

    /// Whether the request is signed with the secret.
    pub(super) fn is_signed_with(&self, secret: &str, parts: &Parts, body: &[u8]) -> bool {
        let Some(text) = self.text_to_sign(parts, body) else {
            return false;
        };
        let Scope {
            date,
            region,
            service,
            ..
        } = &self.scope;
        let mut key = Some(format!("AWS4{secret}").into_bytes());
        for part in [date, region, service, "aws4_request"] {
            let mac = key.and_then(|key| hmac(&key, part.as_bytes()));
            key = mac.map(|mac| mac.finalize().into_bytes().to_vec());
        }
        let mac = key.and_then(|key| hmac(&key, text.as_bytes()));
        // Compares in constant time.
        mac.is_some_and(|mac| mac.verify_slice(&self.signature).is_ok())
    }

    fn text_to_sign(&self, parts: &Parts, body: &[u8]) -> Option<String> {
        let canonical = self.canonical(parts, body)?;
        let Scope {
            date,
            region,
            service,
            ..
        } = &self.scope;
        let (time, hash) = (&self.time, hash(canonical.as_bytes()));
        Some(format!(
            "{ALGORITHM}\n{time}\n{date}/{region}/{service}/aws4_request\n{hash}"
        ))
    }

    /// The request as its signature sees it; none where a signed header is not there.
    fn canonical(&self, parts: &Parts, body: &[u8]) -> Option<String> {
        let mut text = format!("{}\n/\n{}\n", parts.method, query(parts.uri.query()));
        let mut headers = self.headers.clone();
        headers.sort_unstable();
        for name in &headers {
            let values = parts.headers.get_all(name).into_iter();
            let values: Option<Vec<String>> = values
                .map(|value| Some(squeeze(std::str::from_utf8(value.as_bytes()).ok()?)))
                .collect();
            let values = values.filter(|values| !values.is_empty())?;
            text.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        text.push_str(&format!("\n{}\n{}", self.headers.join(";"), hash(body)));
        Some(text)
    }
}

fn read_scope(credential: &str) -> Result<Scope> {
    let parts: Vec<&str> = credential.split('/').collect();
    let [key_id, date, region, service, "aws4_request"] = parts.as_slice() else {
        return Err(incomplete(
            "The Credential is not KEY/DATE/REGION/SERVICE/aws4_request",
        ));
    };
    let plain = |text: &str, most: usize| {
        (1..=most).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !plain(key_id, 128) || !plain(date, 8) || !plain(region, 64) {
        return Err(incomplete("The Credential has an odd key, date or region"));
    }
    if !matches!(*service, "ec2" | "sts") {
        return Err(incomplete(
            "The Credential is not for the service ec2 or sts",
        ));
    }
    let [key_id, date, region, service] =
        [key_id, date, region, service].map(|part| (*part).to_owned());
    Ok(Scope {
        key_id,
        date,
        region,
        service,
    })
}

fn read_time(text: &str) -> Option<Timestamp> {
    let basic = DateTime::strptime("%Y%m%dT%H%M%SZ", text);
    let basic = basic.and_then(|time| time.to_zoned(TimeZone::UTC));
    match basic {
        Ok(time) => Some(time.timestamp()),
        Err(_) => jiff::fmt::rfc2822::parse(text)
            .ok()
            .map(|time| time.timestamp()),
    }
}

fn check_clock(time: Timestamp, now: SystemTime) -> Result<()> {
    let now = Timestamp::try_from(now).unwrap_or(Timestamp::MAX);
    if time.duration_since(now).unsigned_abs() <= SKEW {
        return Ok(());
    }
    let message = format!(
        "Request has expired. It is dated {time:.0}, and it is {now:.0} here; set the client's clock, \
         which may differ by {} s",
        SKEW.as_secs()
    );
    Err(Fault::new("RequestExpired", message))
}

fn hmac(key: &[u8], text: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(text);
    Some(mac)
}

fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let digits = text.as_bytes().chunks(2);
    let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect()
}

/// The fields of a query, each encoded anew, in order.
fn query(query: Option<&str>) -> String {
    let encode = |text: &str| {
        let bytes: Vec<u8> = percent_decode_str(text).collect();
        percent_encode(&bytes, RESERVED).to_string()
    };
    let fields = query.unwrap_or_default().split('&');
    let mut fields: Vec<(String, String)> = fields
        .filter(|field| !field.is_empty())
        .map(|field| {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            (encode(name), encode(value))
        })
        .collect();
    fields.sort_unstable();
    let fields = fields.iter().map(|(name, value)| format!("{name}={value}"));
    fields.collect::<Vec<_>>().join("&")
}

/// A header's value without spaces around it, and with one where there are several.
fn squeeze(value: &str) -> String {
    let words = value.split([' ', '\t', '\r', '\n']);
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    /// The key of AWS's published test vectors.
    const KEY: &str = "AKIDEXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn now() -> SystemTime {
        let time: Timestamp = "2015-08-30T12:36:00Z".parse().unwrap();
        time.into()
    }

    /// Reads a request as the vectors have it, and says whether its signature is right. The vectors are
    /// for a service called `service`, which no other check would take.
    fn check(head: &str, body: &str, signed: &str, signature: &str) {
        let mut lines = head.lines();
        let mut first = lines.next().unwrap().split(' ');
        let (method, uri) = (first.next().unwrap(), first.next().unwrap());
        let mut request = Request::builder().method(method).uri(uri);
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            request = request.header(name, value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let claim = Claim {
            scope: Scope {
                key_id: KEY.to_owned(),
                date: "20150830".to_owned(),
                region: "us-east-1".to_owned(),
                service: "service".to_owned(),
            },
            headers: signed.split(';').map(str::to_owned).collect(),
            signature: from_hex(signature).unwrap(),
            time: "20150830T123600Z".to_owned(),
        };
        let canonical = claim.canonical(&parts, body.as_bytes());
        assert!(
            claim.is_signed_with(SECRET, &parts, body.as_bytes()),
            "{canonical:?}"
        );
        assert!(!claim.is_signed_with("another", &parts, body.as_bytes()));
        assert!(!claim.is_signed_with(SECRET, &parts, b"another"));
    }

    const HEAD: &str = "Host:example.amazonaws.com\nX-Amz-Date:20150830T123600Z";

    #[test]
    fn the_published_vectors_are_signed_right() {
        for (first, more, signed, signature, body) in [
            (
                "GET /",
                "",
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
                "",
            ),
            (
                "GET /?Param2=value2&Param1=value1",
                "",
                "host;x-amz-date",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
                "",
            ),
            (
                "GET /?Param1=value2&Param1=Value1",
                "",
                "host;x-amz-date",
                "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1",
                "",
            ),
            (
                "GET /?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
                "",
                "host;x-amz-date",
                "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
                "",
            ),
            (
                "GET /?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
                "",
                "host;x-amz-date",
                "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
                "",
            ),
            (
                "GET /",
                "\nMy-Header1:value4\nMy-Header1:value1\nMy-Header1:value3\nMy-Header1:value2",
                "host;my-header1;x-amz-date",
                "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
                "",
            ),
            (
                "GET /",
                "\nMy-Header1: value1\nMy-Header2: \"a   b   c\"",
                "host;my-header1;my-header2;x-amz-date",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
                "",
            ),
            (
                "POST /",
                "\nMy-Header1:VALUE1",
                "host;my-header1;x-amz-date",
                "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
                "",
            ),
            (
                "POST /",
                "\nContent-Type:application/x-www-form-urlencoded",
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
                "Param1=value1",
            ),
            (
                "POST /",
                "\nContent-Type:application/x-www-form-urlencoded; charset=utf8",
                "content-type;host;x-amz-date",
                "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
                "Param1=value1",
            ),
        ] {
            check(&format!("{first}\n{HEAD}{more}"), body, signed, signature);
        }
    }

    fn signed(authorization: &str, date: &str) -> Result<Claim> {
        let request = Request::builder()
            .method("POST")
            .uri("/")
            .header("host", "127.0.0.1:8780")
            .header("x-amz-date", date)
            .header("authorization", authorization)
            .body(())
            .unwrap();
        Claim::read(&request.into_parts().0, now())
    }

    const RIGHT: &str = "AWS4-HMAC-SHA256 Credential=K/20150830/eu-1/ec2/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature=";

    #[test]
    fn a_claim_is_read_and_a_strange_one_refused() {
        let signature = "0".repeat(64);
        let right = format!("{RIGHT}{signature}");
        let claim = signed(&right, "20150830T123600Z").unwrap();
        assert_eq!(claim.scope.region, "eu-1");
        let code = |authorization: &str, date: &str| signed(authorization, date).unwrap_err().code;
        let now = "20150830T123600Z";
        for wrong in [
            "Basic abc",
            &right.replace("ec2", "s3"),
            &right.replace("host;", ""),
            &right.replace(";x-amz-date", ""),
            &right.replace("host;", "host;host;"),
            &right.replace("20150830", "20150829"),
            &right.replace("K/", ""),
            &right[..right.len() - 1],
            &right.replace("Signature=", "Signatur="),
        ] {
            assert_eq!(code(wrong, now), "IncompleteSignature", "{wrong}");
        }
        assert_eq!(code(&right, "yesterday"), "IncompleteSignature");
        assert_eq!(code(&right, "20150830T123059Z"), "RequestExpired");
        assert_eq!(code(&right, "20150830T124101Z"), "RequestExpired");
        assert!(signed(&right, "20150830T124100Z").is_ok());
    }
}

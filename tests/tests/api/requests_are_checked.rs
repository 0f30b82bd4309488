//! Requests that nobody signed, or that are none, are refused with the code that clients know, and cost
//! little.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::api::{Api, Clients};

/// Sends bytes to the API, and reads the answer.
fn send(api: &Api, request: &[u8]) -> Result<String> {
    api.pair.host.enter(|| {
        let mut stream = TcpStream::connect("127.0.0.1:8780").context("connecting")?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        // It may be refused before all of it is sent.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}

fn post(body: &str, headers: &str) -> Vec<u8> {
    format!(
        "POST / HTTP/1.1\r\nHost: 127.0.0.1:8780\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn what_is_not_signed_is_refused_in_the_shape_of_its_service() -> Result<()> {
    let api = Api::serve()?;
    let answer = send(&api, &post("Action=DescribeVpcs&Version=2016-11-15", ""))?;
    ensure!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    ensure!(
        answer.contains("<Response><Errors><Error><Code>MissingAuthenticationToken</Code>"),
        "{answer}"
    );
    let answer = send(
        &api,
        &post("Action=GetCallerIdentity&Version=2011-06-15", ""),
    )?;
    ensure!(answer.contains("<ErrorResponse xmlns="), "{answer}");
    ensure!(
        answer.contains("<Code>MissingAuthenticationToken</Code>"),
        "{answer}"
    );
    let answer = send(
        &api,
        &post("Action=DescribeVpcs", "Authorization: Basic abc\r\n"),
    )?;
    ensure!(
        answer.contains("<Code>IncompleteSignature</Code>"),
        "{answer}"
    );
    let answer = send(
        &api,
        b"GET /status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )?;
    ensure!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    Ok(())
}

#[test]
fn a_request_that_is_too_long_is_cut_off() -> Result<()> {
    let api = Api::serve()?;
    let long = format!("Action=DescribeVpcs&A={}", "a".repeat(2 << 20));
    let answer = send(&api, &post(&long, ""))?;
    ensure!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = send(&api, &post("Action=DescribeVpcs&Version=2016-11-15", ""))?;
    ensure!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    Ok(())
}

#[test]
fn a_signed_request_is_read_to_its_last_field() -> Result<()> {
    let Some(clients) = Clients::find("signed requests are checked") else {
        return Ok(());
    };
    let api = Api::serve()?;
    api.python(&clients, "requests.py", &[])?;
    ensure!(
        !api.daemon.log().contains(&api.key.secret),
        "the secret is in the log"
    );
    Ok(())
}

//! A small HTTP server, one answer a connection: the token server, and registries that mean harm.

use anyhow::Result;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

#[derive(Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Instead of the body's length; 0 stands for none at all: the body ends with the connection.
    pub length: Option<u64>,
}

pub struct Server {
    /// `127.0.0.1:PORT`
    pub address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            body: body.into(),
            ..Answer::default()
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Server {
    pub fn start(handle: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handle, log) = (Arc::new(handle), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handle, log) = (handle.clone(), log.clone());
                std::thread::spawn(move || {
                    let Ok(request) = read(&stream) else { return };
                    log.lock().unwrap().push(request.clone());
                    let _ = write(stream, &handle(&request), request.method == "HEAD");
                });
            }
        });
        Ok(Server { address, seen })
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

fn read(stream: &TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut request = Request {
        // TLS, which is not spoken here.
        method: words
            .next()
            .filter(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()))
            .ok_or(std::io::ErrorKind::InvalidData)?,
        path: words.next().unwrap_or_default(),
        ..Request::default()
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        request
            .headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = request
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    reader.take(length).read_to_end(&mut request.body)?;
    Ok(request)
}

fn write(mut stream: TcpStream, answer: &Answer, head: bool) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        text += &format!("{name}: {value}\r\n");
    }
    match answer.length {
        Some(0) => {}
        Some(length) => text += &format!("Content-Length: {length}\r\n"),
        None => text += &format!("Content-Length: {}\r\n", answer.body.len()),
    }
    stream.write_all(text.as_bytes())?;
    stream.write_all(b"\r\n")?;
    if !head {
        stream.write_all(&answer.body)?;
    }
    stream.flush()
}

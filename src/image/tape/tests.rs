use super::*;

fn entry(path: &str) -> Entry {
    Entry::file(path, 0)
}

fn tape(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.put(entry, *content).unwrap();
    }
    writer.finish().unwrap()
}

fn read(stream: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut tape = Tape::new(stream);
    let mut all = Vec::new();
    while let Some(entry) = tape.next_entry()? {
        let mut content = Vec::new();
        loop {
            let n = tape.content()?.len();
            if n == 0 {
                break;
            }
            content.extend_from_slice(tape.content()?);
            tape.consume(n);
        }
        all.push((entry, content));
    }
    Ok(all)
}

fn why(stream: &[u8]) -> String {
    format!("{:#}", read(stream).unwrap_err())
}

/// A header of the old kind, with bytes changed and the checksum made right.
fn raw(name: &str, kind: u8, size: u64, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut one = entry(name);
    one.size = size;
    let mut block = tape(&[(entry(name), b"")])[..BLOCK].to_vec();
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    change(&mut block);
    block[148..156].copy_from_slice(b"        ");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn block_of(content: &[u8]) -> Vec<u8> {
    let mut block = content.to_vec();
    block.resize(content.len().next_multiple_of(BLOCK), 0);
    block
}

#[test]
fn what_is_written_is_read() {
    let long = "d/".repeat(200) + "name";
    for (change, content) in [
        (
            Entry {
                size: 3,
                ..entry("a")
            },
            &b"abc"[..],
        ),
        (
            Entry {
                size: 512,
                mode: 0o4755,
                ..entry("b")
            },
            &[7; 512],
        ),
        (
            Entry {
                link: long.clone().into_bytes(),
                kind: Kind::Symlink,
                ..entry(&long)
            },
            b"",
        ),
        (
            Entry {
                uid: 1 << 31,
                gid: 1 << 22,
                ..entry("ids")
            },
            b"",
        ),
        (
            Entry {
                mtime: Time {
                    seconds: -2,
                    nanos: 500_000_000,
                },
                ..entry("old")
            },
            b"",
        ),
        (
            Entry {
                mtime: Time {
                    seconds: -2,
                    nanos: 0,
                },
                ..entry("older")
            },
            b"",
        ),
        (
            Entry {
                mtime: Time {
                    seconds: 1 << 40,
                    nanos: 1,
                },
                ..entry("new")
            },
            b"",
        ),
        (
            Entry {
                xattrs: vec![
                    (b"security.capability".to_vec(), b"\x01\0\0\n=".to_vec()),
                    (b"user.e".to_vec(), vec![]),
                ],
                ..entry("x")
            },
            b"",
        ),
        (
            Entry {
                kind: Kind::Char,
                major: 5,
                minor: 1,
                ..entry("dev/console")
            },
            b"",
        ),
        (
            Entry {
                kind: Kind::Directory,
                mode: 0o1777,
                ..entry("tmp/")
            },
            b"",
        ),
        (
            Entry {
                kind: Kind::Link,
                link: b"a".to_vec(),
                ..entry("hard")
            },
            b"",
        ),
        (
            Entry {
                kind: Kind::Fifo,
                ..entry("fifo")
            },
            b"",
        ),
    ] {
        let stream = tape(&[(change.clone(), content), (entry("last"), b"")]);
        let all = read(&stream).unwrap();
        assert_eq!(all[0], (change, content.to_vec()));
        assert_eq!(all[1].0.path, b"last");
    }
}

#[test]
fn old_headers_are_read_as_go_reads_them() {
    for (name, kind, change, expected) in [
        ("v7dir/", b'\0', None, Kind::Directory),
        ("cont", b'7', None, Kind::File),
        ("plain", b'\0', Some(()), Kind::File),
    ] {
        let stream = raw(name, kind, 0, |block| {
            if change.is_some() {
                block[257..265].fill(0); // V7: no magic at all
            }
        });
        assert_eq!(read(&stream).unwrap()[0].0.kind, expected, "{name}");
    }
    // The prefix of ustar.
    let stream = raw("name", b'0', 0, |block| {
        block[345..348].copy_from_slice(b"a/b")
    });
    assert_eq!(read(&stream).unwrap()[0].0.path, b"a/b/name");
    // No content after a directory, whatever its size says.
    let stream = [raw("d/", b'5', 512, |_| ()), raw("f", b'0', 0, |_| ())].concat();
    assert_eq!(read(&stream).unwrap().len(), 2);
}

#[test]
fn base_256_numbers_have_a_sign() {
    let stream = raw("f", b'0', 0, |block| {
        block[136..148].fill(0xff); // mtime -1
        block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0x80, 0, 0, 1]);
    });
    let one = &read(&stream).unwrap()[0].0;
    assert_eq!((one.mtime.seconds, one.uid), (-1, 0x8000_0001));
    for (at, fill, expected) in [
        (124..136, 0xff, "size is negative"),
        (124..136, 0x80, "size is 2^63 or more"),
        (108..116, 0xff, "uid is negative"),
    ] {
        let stream = raw("f", b'0', 0, |block| {
            block[at.clone()].fill(fill);
            if fill == 0x80 {
                block[at.start + 4] = 0x80;
            }
        });
        assert_eq!(why(&stream), expected);
    }
}

#[test]
fn ambiguous_and_damaged_streams_are_errors() {
    let pax = |records: &[u8]| {
        [
            raw("p", b'x', records.len() as u64, |_| ()),
            block_of(records),
        ]
        .concat()
    };
    let gnu = |name: &[u8]| [raw("g", b'L', name.len() as u64, |_| ()), block_of(name)].concat();
    let file = raw("f", b'0', 0, |_| ());
    for (stream, expected) in [
        (
            [pax(b"8 path=b\n".as_slice()), gnu(b"c\0"), file.clone()].concat(),
            "a malformed PAX header",
        ),
        (
            [pax(b"10 path=b\n".as_slice()), gnu(b"c\0"), file.clone()].concat(),
            "a PAX name and a GNU long name for one entry",
        ),
        (
            [pax(b"10 path=b\n"), pax(b"10 path=b\n"), file.clone()].concat(),
            "two PAX headers for one entry",
        ),
        (
            [pax(b"99999999999999999999 path=b\n"), file.clone()].concat(),
            "a malformed PAX header",
        ),
        (
            [pax(b"28 size=9223372036854775808\n"), file.clone()].concat(),
            "PAX size \"9223372036854775808\"",
        ),
        (
            [pax(b"12 size=-1x\n"), file.clone()].concat(),
            "PAX size \"-1x\"",
        ),
        (
            pax(b"10 path=b\n"),
            "the stream ends after an extension header",
        ),
        (
            [vec![0; BLOCK], file.clone()].concat(),
            "a single block of zeros in the middle of the stream",
        ),
        (
            file[..300].to_vec(),
            "the stream ends in the middle of a header",
        ),
        (
            raw("f", b'0', 1, |_| ()),
            "the stream ends in the middle of a file",
        ),
        (
            vec![b'x'; BLOCK],
            "a header with a wrong checksum: not a tar stream, or damaged",
        ),
        (
            raw("f", b'Z', 0, |_| ()),
            "entry \"f\" is of an unknown type 'Z'",
        ),
        (
            raw("p", b'x', 1 << 30, |_| ()),
            "an extension header of 1073741824 bytes (at most 1048576)",
        ),
        (
            raw("p", b'L', 1 << 30, |_| ()),
            "an extension header of 1073741824 bytes (at most 1048576)",
        ),
    ] {
        assert_eq!(why(&stream), expected);
    }
    // One zero block, or none, at the end: Go takes both.
    assert_eq!(
        read(&[file.clone(), vec![0; BLOCK]].concat())
            .unwrap()
            .len(),
        1
    );
    assert_eq!(read(&file).unwrap().len(), 1);
}

#[test]
fn the_size_of_a_pax_header_is_the_one_that_counts() {
    let records = b"10 size=3\n";
    let stream = [
        raw("p", b'x', records.len() as u64, |_| ()),
        block_of(records),
        raw("f", b'0', 1024, |_| ()),
        block_of(b"abc"),
        raw("g", b'0', 0, |_| ()),
    ]
    .concat();
    let all = read(&stream).unwrap();
    assert_eq!(all[0].1, b"abc");
    assert_eq!(all[1].0.path, b"g");
}

#[test]
fn sparse_files_of_every_format_have_their_segments() {
    let gnu = raw("s", b'S', 6, |block| {
        block[257..265].copy_from_slice(b"ustar  \0");
        for (at, value) in [(386, 0), (398, 3), (410, 1000), (422, 3)] {
            block[at..at + 11].copy_from_slice(format!("{value:011o}").as_bytes());
        }
        block[483..494].copy_from_slice(format!("{:011o}", 2000).as_bytes());
    });
    let pax = |records: &[&str], content: &[u8]| {
        let mut text = Vec::new();
        for record in records {
            let mut n = record.len() + 3;
            while n != record.len() + 2 + n.to_string().len() {
                n = record.len() + 2 + n.to_string().len();
            }
            text.extend_from_slice(format!("{n} {record}\n").as_bytes());
        }
        let header = raw("p", b'x', text.len() as u64, |_| ());
        [
            header,
            block_of(&text),
            raw("s", b'0', content.len() as u64, |_| ()),
            block_of(content),
        ]
        .concat()
    };
    let map = block_of(b"2\n0\n3\n1000\n3\n");
    for stream in [
        [gnu, block_of(b"abcdef")].concat(),
        pax(
            &[
                "GNU.sparse.size=2000",
                "GNU.sparse.numblocks=2",
                "GNU.sparse.offset=0",
                "GNU.sparse.numbytes=3",
                "GNU.sparse.offset=1000",
                "GNU.sparse.numbytes=3",
            ],
            b"abcdef",
        ),
        pax(
            &[
                "GNU.sparse.name=s",
                "GNU.sparse.size=2000",
                "GNU.sparse.map=0,3,1000,3",
            ],
            b"abcdef",
        ),
        pax(
            &[
                "GNU.sparse.major=1",
                "GNU.sparse.minor=0",
                "GNU.sparse.name=s",
                "GNU.sparse.realsize=2000",
            ],
            &[map.as_slice(), b"abcdef"].concat(),
        ),
    ] {
        let (one, content) = &read(&stream).unwrap()[0];
        assert_eq!(one.segments.as_deref(), Some(&[(0, 3), (1000, 3)][..]));
        assert_eq!((one.size, content.as_slice()), (2000, &b"abcdef"[..]));
    }
    let overlap = pax(
        &["GNU.sparse.size=2000", "GNU.sparse.map=0,3,1,3"],
        b"abcdef",
    );
    assert_eq!(
        why(&overlap),
        "a sparse file's segments overlap or lie beyond its end"
    );
    let short = pax(&["GNU.sparse.size=2000", "GNU.sparse.map=0,3"], b"abcdef");
    assert_eq!(
        why(&short),
        "a sparse file's map has 3 bytes, its content 6"
    );
}

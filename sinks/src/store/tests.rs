use super::*;
use object_store::memory::InMemory;

fn remote() -> Remote {
    Remote::new(Arc::new(InMemory::new()), "a/b", "s3://bucket/a/b/")
}

#[test]
fn paths_are_below_the_prefix_whatever_it_is() {
    for (prefix, url) in [("a/b", "s3://bucket/a/b"), ("", "s3://bucket")] {
        let remote = Remote::new(Arc::new(InMemory::new()), prefix, url);
        remote.create("history/t_log/date=2026-05-01/x.parquet", b"1".to_vec()).unwrap();
        remote.create("historical/y", b"1".to_vec()).unwrap();
        assert_eq!(remote.list("history").unwrap(), ["history/t_log/date=2026-05-01/x.parquet"]);
        assert_eq!(remote.read("historical/y").unwrap().unwrap(), "1");
        assert_eq!(remote.bucket().1, "s3://bucket");
        assert_eq!(remote.place("x").display().to_string(), format!("{url}/x"));
    }
}

#[test]
fn an_object_is_created_once() {
    let remote = remote();
    remote.create("x", b"one".to_vec()).unwrap();
    remote.create("x", b"one".to_vec()).unwrap();
    let error = remote.create("x", b"two".to_vec()).unwrap_err();
    assert!(error.to_string().contains("s3://bucket/a/b/x") && !error.is_retryable(), "{error}");
    assert_eq!(remote.read("x").unwrap().unwrap(), "one");
    assert_eq!(remote.read("y").unwrap(), None);
}

/// Below a part, exactly one, and several with a rest.
#[test]
fn files_of_any_size_go_up_and_come_back() {
    let (remote, dir) = (remote(), tempfile::tempdir().unwrap());
    let sizes = [0, 1, PART - 1, PART, PART + 1, 5 * PART + 3];
    let content = |size: usize| (0..size).map(|i| (i % 251) as u8).collect::<Vec<u8>>();
    let files = sizes.map(|size| (dir.path().join(size.to_string()), format!("up/{size}")));
    files.iter().zip(sizes).for_each(|((path, _), size)| std::fs::write(path, content(size)).unwrap());
    remote.upload(files.clone().into()).unwrap();
    for ((_, object), size) in files.iter().zip(sizes) {
        let back = dir.path().join("back/again").join(size.to_string());
        assert!(remote.download(object, &back).unwrap());
        assert!(std::fs::read(&back).unwrap() == content(size), "{size}");
        if size == 0 {
            continue;
        }
        let end = remote.read_ends(&[(object.clone(), size as u64)], 10).unwrap();
        assert_eq!(end[0], content(size)[size.saturating_sub(10)..], "{size}");
    }
    assert!(!remote.download("up/none", &dir.path().join("none")).unwrap());
    assert!(!dir.path().join("none").exists());
}

#[test]
fn copying_and_deleting_may_be_repeated() {
    let remote = remote();
    remote.create("staging/x", b"1".to_vec()).unwrap();
    let pair = [("staging/x".to_string(), "history/x".to_string())];
    remote.copy(&pair).unwrap();
    remote.copy(&pair).unwrap();
    remote.delete(vec!["staging/x".into()]).unwrap();
    remote.delete(vec!["staging/x".into()]).unwrap();
    remote.copy(&pair).unwrap();
    assert_eq!(remote.list("").unwrap(), ["history/x"]);
    remote.delete(vec!["history/x".into()]).unwrap();
    let error = remote.copy(&pair).unwrap_err();
    assert!(error.source.kind() == ErrorKind::NotFound && error.to_string().contains("cannot publish"), "{error}");
}

#[test]
fn it_works_within_another_runtime_too() {
    let remote = remote();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { remote.create("x", b"1".to_vec()).unwrap() });
    assert_eq!(remote.list("").unwrap(), ["x"]);
}

#[test]
fn the_catalogue_of_the_generation_or_the_one_before() {
    let remote = remote();
    assert_eq!(remote.catalogue(3).unwrap(), None);
    for generation in [1, 2, 4] {
        remote.save_catalogue(generation, format!("{generation}")).unwrap();
    }
    assert_eq!(remote.catalogue(4).unwrap().unwrap(), "4");
    assert_eq!(remote.list("catalogue").unwrap(), ["catalogue/g4.json"]);
    remote.save_catalogue(5, "5".into()).unwrap();
    assert_eq!(remote.catalogue(4).unwrap().unwrap(), "4");
    assert_eq!(remote.catalogue(9).unwrap().unwrap(), "5");
}

import fsspec
def test_a(object_store):
    s, root = fsspec.core.url_to_fs(object_store + "/x")
    s.pipe_file(root + "/a", b"x" * 100)
    assert s.cat_file(root + "/a") == b"x" * 100
    print(s.ls(root, detail=True, refresh=True))
def test_b(object_store):
    s, root = fsspec.core.url_to_fs(object_store + "/x")
    assert not s.exists(root + "/a")

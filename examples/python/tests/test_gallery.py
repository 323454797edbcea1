from concurrent.futures import ThreadPoolExecutor

from faces.gallery import Gallery, Portrait


def test_the_latest_name_comes_first_and_keeps_its_views():
    gallery = Gallery()
    for name in ["Ada", "Grace", "ada"]:
        gallery.view(name)
    assert gallery.latest() == [Portrait("Ada", 2), Portrait("Grace", 1)]


def test_the_oldest_name_makes_room():
    gallery = Gallery(capacity=2)
    for name in ["Ada", "Grace", "Barbara"]:
        gallery.view(name)
    assert [portrait.name for portrait in gallery.latest()] == ["Barbara", "Grace"]


def test_no_view_is_lost_when_many_come_at_once():
    gallery = Gallery()
    with ThreadPoolExecutor(8) as visitors:
        list(visitors.map(gallery.view, ["Ada"] * 400))
    assert gallery.latest() == [Portrait("Ada", 400)]

# Licensed under a 3-clause BSD style license - see LICENSE
"""A person's way through the page, in headless Chromium: sort, filter, click, look."""

import json
import shutil

import pytest

from jaisp.report import write_report
from jaisp.surveys import EUCLID

selenium = pytest.importorskip("selenium", reason="selenium is not installed")


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "disable-gpu",
        "window-size=1500,1300",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, table, pair, tmp_path):
    """The page, opened; at the end of the test no error and no request is in its logs."""
    from selenium.webdriver.support.ui import WebDriverWait

    write_report(table, tmp_path / "report.html", pair)
    browser.get(f"file://{tmp_path / 'report.html'}")
    WebDriverWait(browser, 20).until(
        lambda b: b.execute_script("return document.body.dataset.ready") == "yes"
    )
    yield browser
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert urls
    assert all(url.startswith(("file://", "data:")) for url in urls)


def texts(browser, selector):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )


def find(browser, selector):
    return browser.find_element("css selector", selector)


def test_sort(page):
    assert texts(page, "tbody td:first-child")[:3] == ["1", "2", "3"]
    head = find(page, "th[data-key=mag_VIS]")
    page.execute_script("arguments[0].click()", head)
    magnitudes = texts(page, "tbody td:nth-child(7)")
    assert magnitudes[-1] == "–"  # what has no value is last, whichever way
    numbers = [float(text) for text in magnitudes[:-1]]
    assert numbers == sorted(numbers)
    assert head.get_attribute("aria-sort") == "ascending"
    page.execute_script("arguments[0].click()", head)
    magnitudes = texts(page, "tbody td:nth-child(7)")
    assert [float(text) for text in magnitudes[:-1]] == numbers[::-1]
    assert magnitudes[-1] == "–"


@pytest.mark.parametrize(
    ("key", "text", "ids"),
    [
        ("activity", ">0.9", ["1", "2", "3"]),
        ("id", "5..7", ["5", "6", "7"]),
        ("id", "<=2", ["1", "2"]),
        ("flags", "rubin", ["4", "8", "12"]),
        ("seen", "!euclid", ["4", "8", "12"]),
    ],
)
def test_filter(page, key, text, ids):
    field = find(page, f"input[data-key={key}]")
    page.execute_script("arguments[0].scrollIntoView({inline: 'center', block: 'center'})", field)
    field.send_keys(text)
    assert texts(page, "tbody td:first-child") == ids
    assert find(page, "#shown").text.startswith(f"{len(ids)} of 12 objects")
    find(page, "#clear").click()
    assert len(texts(page, "tbody tr")) == 12


def test_an_object_from_the_table(page):
    page.execute_script("document.querySelectorAll('tbody tr')[3].click()")
    assert find(page, "#object h2").text == "Object 4"
    panel = find(page, "#object").text
    assert "rubin only" in panel
    captions = texts(page, "#cutouts figcaption")
    assert [caption.split()[0] for caption in captions] == ["u", "g", "r", "i", "z", "y", *EUCLID.band_names]
    assert captions[1] == f"g {(100 + 3 * 4900 / 11) * 2 / 20:.0f}σ"
    # its nearest kin is the object made alike, and a click goes there
    assert texts(page, "#neighbours figcaption")[0] == "3: 1.00"
    page.execute_script("document.querySelector('#neighbours figure').click()")
    assert find(page, "#object h2").text == "Object 3"


def test_an_object_from_the_picture_and_the_map(page):
    from selenium.webdriver import ActionChains

    for canvas, places in (("picture", "toScreen"), ("map", "mapPlaces")):
        for row in (5, 9):
            element = find(page, f"#{canvas}")
            page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            x, y = page.execute_script(f"return {places}({row})")
            width, height = element.size["width"], element.size["height"]
            # The offset is from the middle, in whole pixels.
            ActionChains(page).move_to_element_with_offset(
                element, round(x - width / 2), round(y - height / 2)
            ).click().perform()
            assert find(page, "#object h2").text == f"Object {row + 1}"


def test_cut_outs_show_the_object(page):
    """The middle of the brightest source's cut-out is white, and its edge is not."""
    page.execute_script("document.querySelectorAll('tbody tr')[0].click()")
    middle, edge = page.execute_script(
        """
        const canvas = document.querySelectorAll('#cutouts canvas')[6], side = canvas.width;
        const pen = canvas.getContext('2d');
        const read = (x, y, n) => [...pen.getImageData(x, y, n, n).data].filter((v, k) => k % 4 == 0);
        return [Math.max(...read(side / 2 - 3, side / 2 - 3, 6)), Math.min(...read(0, 0, 6))];
        """
    )
    assert middle > 200
    assert edge < 150


def test_zoom_and_layers(page):
    before = page.execute_script("return view.zoom")
    page.execute_script("zoomBy(4, 100, 100)")
    assert page.execute_script("return view.zoom") == pytest.approx(4 * before)
    find(page, "#home").click()
    assert page.execute_script("return view.zoom") == pytest.approx(before)
    buttons = page.find_elements("css selector", "#layers button")
    assert [button.text for button in buttons] == ["Euclid", "Rubin"]
    image = "return document.getElementById('picture').toDataURL()"
    euclid = page.execute_script(image)
    buttons[1].click()
    assert page.execute_script(image) != euclid
    find(page, "#ellipses").click()
    page.execute_script(
        "const s = document.getElementById('colour'); s.value = 'star'; s.dispatchEvent(new Event('change'))"
    )
    assert find(page, "#scale").text.split() == ["0", "1"]


def test_summary(page):
    assert "9 objects" in find(page, "#offset").text
    assert "12.5 mas east, -7.5 mas north" in find(page, "#offset").text
    assert "3 Rubin only" in texts(page, "#counts li")
    find(page, "#provenance summary").click()
    assert "26.1" in find(page, "#provenance").text
    assert "seen by Rubin alone" in find(page, "#provenance").text


def test_without_images(browser, table, tmp_path):
    write_report(table, tmp_path / "report.html")
    browser.get(f"file://{tmp_path / 'report.html'}")
    browser.execute_script("document.querySelectorAll('tbody tr')[1].click()")
    assert find(browser, "#object h2").text == "Object 2"
    assert texts(browser, "#cutouts") == []
    write_report(table[:0], tmp_path / "empty.html")
    browser.get(f"file://{tmp_path / 'empty.html'}")
    assert find(browser, "#shown").text == "0 of 0 objects"
    assert browser.get_log("browser") == []

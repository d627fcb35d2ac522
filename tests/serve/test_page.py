"""The chat page in a headless browser, on a wide screen and on a phone's."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.serve.conftest import Running, data_url, noise, until, user

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
PICTURES = [noise(0, (60, 40)), noise(1, (30, 30))]
LONG = 40  # tokens, of which the toy makes a few words
ANSWERED = ".assistant .foot"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as started:
        if path is None and not Path(started.chromium.executable_path).exists():
            pytest.skip("no Chromium here: playwright install chromium, or CHROMIUM=PATH")
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=["wide", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    """The page, opened. At the end nothing may have been asked of another host, and no script may have failed."""
    wide = request.param == "wide"
    context = browser.new_context(
        viewport={"width": 1280, "height": 860} if wide else {"width": 390, "height": 800}, has_touch=not wide
    )
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda r: faults.append(r.url) if not r.url.startswith((address, "data:", "blob:")) else None)
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    page.wide = wide
    page.goto(address)
    expect(page.locator("#model")).to_have_text("toy")
    yield page
    assert not faults
    context.close()


def choose(page: Any, *pictures: Any) -> None:
    files = [
        {"name": f"{n}.png", "mimeType": "image/png", "buffer": base64.b64decode(data_url(p).partition(",")[2])}
        for n, p in enumerate(pictures)
    ]
    page.set_input_files("#files", files)
    expect(page.locator("#waiting img")).to_have_count(len(pictures))


def ask(page: Any, text: str) -> str:
    count = page.locator(ANSWERED).count()
    page.fill("#question", text)
    page.keyboard.press("Enter")
    expect(page.locator(ANSWERED)).to_have_count(count + 1, timeout=20000)
    found: str = page.locator(".assistant .text").last.inner_text()
    return found


def fits(page: Any) -> None:
    """Nothing is wider than the screen."""
    assert page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) <= innerWidth")


def set_limit(page: Any, tokens: int) -> None:
    page.click("#open-settings")
    page.fill("[name=max_tokens]", str(tokens))
    page.keyboard.press("Escape")


def model_says(client: OpenAI, *messages: Any) -> str:
    reply = client.chat.completions.create(model="toy", messages=list(messages), max_tokens=LONG)
    return " ".join((reply.choices[0].message.content or "").split())


def test_ask_look_edit_and_again(page: Any, client: OpenAI) -> None:
    set_limit(page, LONG)
    choose(page, *PICTURES)
    urls = [data_url(picture) for picture in PICTURES]
    first = ask(page, "Which?")
    assert " ".join(first.split()) == model_says(client, user("Which?", *urls))
    expect(page.locator(".figures")).to_have_text(re.compile(r"^\d+ tokens? · first after [\d.]+ s · [\d.]+ tokens/s"))
    assert page.locator(".user .shown img").count() == 2
    fits(page)

    page.click("text=What the model saw")
    expect(page.locator(".look canvas")).to_have_count(2)
    word = page.locator(".word").first
    plain = page.locator("canvas").first.evaluate("canvas => canvas.toDataURL()")
    word.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".word").nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".says")).to_contain_text("% of this word's attention")
    heat = page.locator("canvas").first.evaluate("canvas => canvas.toDataURL()")
    assert heat != plain
    page.uncheck("text=Patch grid")
    assert page.locator("canvas").first.evaluate("canvas => canvas.toDataURL()") not in (heat, plain)
    fits(page)

    page.hover(".user .bubble")
    page.click("[aria-label='Edit this question']")
    page.keyboard.press("Control+A")
    page.keyboard.type("What is it?")
    page.keyboard.press("Enter")
    expect(page.locator(".user .bubble")).to_have_text("What is it?")
    expect(page.locator(ANSWERED)).to_have_count(1)
    expected = model_says(client, user("What is it?", *urls))
    assert " ".join(page.locator(".assistant .text").inner_text().split()) == expected
    page.click("[aria-label='Answer again']")
    expect(page.locator("[aria-busy]")).to_have_count(0)
    assert " ".join(page.locator(".assistant .text").inner_text().split()) == expected


def test_history_outlives_the_page_and_can_be_deleted(page: Any) -> None:
    set_limit(page, 4)
    choose(page, PICTURES[0])
    said = ask(page, "First talk")
    page.reload()
    expect(page.locator("#model")).to_have_text("toy")

    def menu() -> None:
        if not page.wide:
            page.click("#open-side")

    menu()
    page.click("#history >> text=First talk")
    assert page.locator(".assistant .text").inner_text() == said
    assert page.locator(".user .shown img").count() == 1
    menu()
    page.click("#new")
    expect(page.locator("#empty")).to_be_visible()
    ask(page, "Second talk")
    menu()
    expect(page.locator("#history .open")).to_have_text(["Second talk", "First talk"])
    page.hover("#history li >> nth=0")
    page.click("[aria-label='Delete “Second talk”']")
    expect(page.locator("#history .open")).to_have_text(["First talk"])
    expect(page.locator("#empty")).to_be_visible()


def test_drop_paste_and_examples(page: Any) -> None:
    give = """([name, url]) => fetch(url).then((r) => r.blob()).then((blob) => {
        const data = new DataTransfer();
        data.items.add(new File([blob], "a.png", {type: "image/png"}));
        const kind = name === "paste" ? ClipboardEvent : DragEvent;
        const key = name === "paste" ? "clipboardData" : "dataTransfer";
        for (const type of name === "paste" ? ["paste"] : ["dragenter", "drop"])
            document.body.dispatchEvent(new kind(type, {[key]: data, bubbles: true, cancelable: true}));
    })"""
    for count, name in enumerate(["drop", "paste"], 1):
        # The page's policy forbids fetching data URLs; an example's file does as well.
        page.evaluate(give, [name, "/web/examples/count.jpg"])
        expect(page.locator("#waiting img")).to_have_count(count)
    expect(page.locator("#drop")).to_be_hidden()
    page.click("[aria-label='Take picture 1 away']")
    expect(page.locator("#waiting img")).to_have_count(1)
    page.reload()
    set_limit(page, 4)
    page.click("#examples button >> nth=2")
    expect(page.locator(ANSWERED)).to_have_count(1, timeout=20000)
    expect(page.locator(".bubble")).to_have_text("How many stars are there?")


def test_dark_and_light(page: Any) -> None:
    def background() -> Any:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.click("#open-settings")
    page.check("text=Dark")
    dark = background()
    page.check("text=Light")
    assert background() != dark
    page.check("text=Dark")
    page.reload()
    assert background() == dark


def test_stop_and_failures(browser: Any, running: Running) -> None:
    address, service = running(queue=0, api_key="sesame")
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    expect(page.locator("#settings")).to_be_visible()
    page.fill("[name=key]", "sesame")
    page.keyboard.press("Escape")
    expect(page.locator("#model")).to_have_text("toy")
    set_limit(page, 100000)
    page.fill("#question", "Go on.")
    page.keyboard.press("Enter")
    expect(page.locator(".assistant .text")).to_have_text(re.compile("..."))
    page.keyboard.press("Escape")
    expect(page.locator(".figures")).to_contain_text("stopped")
    assert service.stats().running <= 1

    client = OpenAI(base_url=f"{address}/v1", api_key="sesame", max_retries=0)
    busy = [client.chat.completions.create(model="toy", messages=[user("Go on.")], stream=True) for _ in range(2)]
    page.fill("#question", "And now?")
    page.keyboard.press("Enter")
    expect(page.locator(".failure")).to_contain_text("The server is busy. Try again in")
    for stream in busy:
        stream.close()
    set_limit(page, 3)
    until(lambda: service.stats().running == 0)
    page.wait_for_timeout(200)
    page.click(".failure button")
    expect(page.locator(ANSWERED)).to_have_count(2)
    context.close()

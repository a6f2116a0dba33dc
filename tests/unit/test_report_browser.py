"""The report in a real headless Chromium: no error, every control works by keyboard, readable on screens and paper."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from synthetic_report import many_recipes, many_tables
from synthetic_tables import make

from featurespace import explorer
from featurespace.figures import angle_dynamics, angle_matrix, layers, training
from featurespace.report import FigureEntry, caption_html, image_uri, write_html

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
QUIET = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync")
VIEWS = ("matrix", "curves", "spectra", "layers")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='540' height='300'><rect width='540' height='9'/></svg>"
OF_TINY = pytest.param("tiny_page", marks=pytest.mark.workflow)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)")


# --- pages ------------------------------------------------------------------------------------------------------------


def figure(name: str) -> FigureEntry:
    """Return a figure of the report, its picture a rectangle."""
    return FigureEntry(
        name=name,
        image=image_uri(SVG),
        alternative=f"What {name} shows.",
        caption=caption_html(f"**The {name}.** What it *shows*.\n\nHow to read it."),
        csv=f"results/made/figures/{name}.csv",
        csv_link=f"figures/{name}.csv",
        png_link=f"figures/{name}.png",
        command=f".venv/bin/snakemake --force results/made/figures/{name}.svg",
    )


def spec_of(recipes: list[dict[str, Any]], **changes: str) -> dict[str, Any]:
    """Return what heads a report."""
    spec = {"study": "made", "title": "Made up", "question": "Is it?", "command": ".venv/bin/snakemake"}
    return spec | {"recipes": recipes} | changes


@pytest.fixture(scope="module")
def made_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, several seeds, one of which stops early, and all views."""
    made = make(n_seeds=3, epochs=8, n_components=6, stop_early=True)
    tables = {
        "angle_dynamics": angle_dynamics.tidy(made.dynamics, made.spec),
        "angle_matrix": angle_matrix.tidy(made.pairs, made.spec),
        "layers": layers.tidy(made.layers, made.runs, made.spec),
        "training": training.tidy(made.history, made.spec),
    }
    views = explorer.views(made.spec["recipes"], made.dynamics, made.spectra, made.layers)
    figures = [figure(name) for name in (*tables, "spectra")]
    times = [{"rule": "train_run", "n_jobs": 7, "total_s": 90.0, "longest_s": 20.0, "peak_mib": 300.0}]
    spec = spec_of(made.spec["recipes"])
    text = write_html(
        spec, figures, tables, made.runs, None, "study: made\n", times, {"python": "3"}, "results/made", views
    )
    path = tmp_path_factory.mktemp("made") / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def many_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 200 runs of 200 recipes."""
    recipes = many_recipes(200)
    tables = many_tables(recipes)
    views = explorer.views(recipes, tables["dynamics"], tables["spectra"], tables["layers"])
    text = write_html(spec_of(recipes), [], {}, tables["runs"], None, "", [], {}, "results/many", views)
    path = tmp_path_factory.mktemp("many") / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tiny_page(tiny: Any) -> Path:
    """The report of the tiny study, as the workflow made it."""
    return tiny.root / "results" / "tiny" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a file; at the end no console message, error, dialog or request may have come."""
    contexts, wrong = [], []

    def visit(path: Path, width: dict[str, int] = DESK, **options: Any) -> Page:
        context = browser.new_context(viewport=width, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or wrong.append(request.url))
        page.goto(path.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


def show(page: Page, view: str) -> None:
    """Choose a view."""
    page.check(f'input[name="x-view"][value="{view}"]')


def plate(page: Page) -> str:
    """Return what the chosen view says."""
    return page.inner_text("#x-plate")


def wait_until(page: Page, condition: str) -> None:
    """Wait until an expression is true; the page may evaluate no text, so that the driver asks again and again."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {condition}")


def open_everything(page: Page) -> None:
    """Open every part that is closed."""
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")


# --- the whole page ---------------------------------------------------------------------------------------------------

# Text whose contrast with what is behind it is below WCAG's 4.5 (3 where it is large): what, and how much.
LOW_CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let n = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const style = getComputedStyle(element);
    const text = walker.currentNode.data.trim();
    if (!text || !element.checkVisibility() || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    n += 1;
    let ground = null;
    for (let at = element; at && !ground; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) ground = colour;
    }
    const ink = parse(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground ?? [255, 255, 255])].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (contrast < (large ? 3 : 4.5)) found.push(`${contrast.toFixed(2)} ${element.tagName} ${text.slice(0, 40)}`);
  }
  return { n, found };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["made_page", OF_TINY])
def test_all_text_stands_out_in_light_and_in_dark(
    name: str, scheme: str, visit: Callable[..., Page], request: pytest.FixtureRequest
) -> None:
    page = visit(request.getfixturevalue(name), color_scheme=scheme)
    open_everything(page)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    for view in VIEWS:
        show(page, view)
        seen = page.evaluate(LOW_CONTRAST)
        assert seen["n"] > 100
        assert seen["found"] == [], view


@pytest.mark.parametrize("name", ["made_page", "many_page", OF_TINY])
def test_a_phone_need_not_scroll_sideways(
    name: str, visit: Callable[..., Page], request: pytest.FixtureRequest
) -> None:
    page = visit(request.getfixturevalue(name), PHONE)
    open_everything(page)
    for view in VIEWS:
        show(page, view)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], view


def test_paper_has_everything_and_no_controls(made_page: Path, visit: Callable[..., Page]) -> None:
    page = visit(made_page, color_scheme="dark")
    page.emulate_media(media="print")
    shown = "[...document.querySelectorAll('input, select, button, nav')].filter((e) => e.checkVisibility()).length"
    assert page.evaluate(shown) == 0
    closed = """[...document.querySelectorAll("main details:not(.interactive *):not(.on-screen)")]
      .map((part) => [part.open, part.lastElementChild.getBoundingClientRect().height])"""
    parts = page.evaluate(closed)
    assert len(parts) > 5
    assert all(not is_open and height > 0 for is_open, height in parts)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    page.set_viewport_size({"width": 700, "height": 1000})  # A4 within its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    assert page.pdf(format="A4").count(b"/Type /Page\n") >= 4


def test_without_scripts_what_carries_the_report_is_there(made_page: Path, visit: Callable[..., Page]) -> None:
    page = visit(made_page, java_script_enabled=False)
    assert page.locator("#explorer").is_hidden()
    assert page.get_by_text("This part needs JavaScript").is_visible()
    assert page.locator("#figures img").count() == 3
    assert page.locator(".answer li").count() == 3


def test_the_browser_itself_refuses_what_would_come_from_elsewhere(made_page: Path, browser: Browser) -> None:
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(made_page.as_uri())
    asked.clear()
    refused = page.evaluate("""() => new Promise((done) => {
      document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
      new Image().src = "https://localhost/x.png";
    })""")
    page.close()
    assert refused == "img-src"
    assert asked in ([], ["https://localhost/x.png"])  # the driver may tell of it; it was blocked before it was sent


def test_every_control_has_a_name(made_page: Path, visit: Callable[..., Page]) -> None:
    roles = {
        "button",
        "checkbox",
        "combobox",
        "slider",
        "radio",
        "searchbox",
        "textbox",
        "link",
        "grid",
        "region",
        "image",
    }
    page = visit(made_page)
    open_everything(page)
    client = page.context.new_cdp_session(page)
    seen: dict[str, set[str]] = {}
    for view in VIEWS:
        show(page, view)
        for node in client.send("Accessibility.getFullAXTree")["nodes"]:
            role = node.get("role", {}).get("value")
            if role in roles and not node.get("ignored"):
                name = node.get("name", {}).get("value", "")
                assert name.strip(), node
                seen.setdefault(role, set()).add(name)
    assert {"Epoch", "Component", "Layer"} <= seen["slider"]
    assert {"Data set", "Seed", "Show", "Angle to", "Layer", "Measure"} <= seen["combobox"]
    assert {"Play", "Select all", "Select none"} <= seen["button"]
    assert {"raw", "centred", "Spectra", "Layers"} <= seen["radio"]
    assert {"mlp", "cnn"} <= seen["checkbox"]
    assert "What training shows." in seen["image"]


# --- the controls -----------------------------------------------------------------------------------------------------


def press_on(page: Page, selector: str, *keys: str) -> tuple[str, str]:
    """Focus an element, press keys, and return what the view said before and says after."""
    before = plate(page)
    page.focus(selector)
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    for key in keys:
        page.keyboard.press(key)
    assert page.evaluate(outline) != "none", selector  # one sees where one is
    return before, plate(page)


def test_every_control_works_by_keyboard(made_page: Path, visit: Callable[..., Page]) -> None:
    page = visit(made_page)
    # in the order in which they stand, and nothing else between
    page.focus('input[name="x-view"]:checked')
    order = []
    for _ in range(7):
        order.append(
            page.evaluate("document.activeElement.id || document.activeElement.name || document.activeElement.tagName")
        )
        page.keyboard.press("Tab")
    assert order == ["x-view", "x-dataset", "x-centring", "x-seed", "x-quantity", "SUMMARY", "x-epoch"]

    for selector, keys in {
        "#x-epoch": ["Home"],
        'input[name="x-centring"]:checked': ["ArrowRight"],
        "#x-quantity": ["ArrowDown", "ArrowDown"],
        "#x-seed": ["ArrowDown"],
        "#x-dataset": ["ArrowDown"],
    }.items():
        before, after = press_on(page, selector, *keys)
        assert before != after, selector
    press_on(page, "#x-dataset", "ArrowUp")
    press_on(page, "#x-quantity", "ArrowUp", "ArrowUp")

    # recipes
    page.focus("#x-filter summary")
    page.keyboard.press("Enter")
    before, after = press_on(page, '#x-recipes input[value="cnn"]', "Space")
    assert "cnn" in before and "cnn" not in after
    assert page.inner_text("#x-count") == "5 of 6 shown"
    before, after = press_on(page, "#x-none", "Enter")
    assert after == "No recipe is selected."
    before, after = press_on(page, "#x-all", "Enter")
    assert "cnn" in after

    # the cells of the heat map: one stop of the tab key, then arrows
    assert page.locator('.matrix td[tabindex="0"]').count() == 1
    page.focus('.matrix td[tabindex="0"]')
    said = [page.inner_text("#x-say")]
    for key in ("ArrowRight", "ArrowDown", "End", "Home", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
        said.append(page.inner_text("#x-say"))
    assert said[0].startswith("mlp at epoch") and "to its own last step: angle" in said[0]
    assert "to the data: angle" in said[1] and "permutation null" in said[1]
    assert said[2].startswith("cnn at epoch")
    assert len(set(said)) >= 5

    # the other views
    before, after = press_on(page, 'input[name="x-view"]:checked', "ArrowRight")
    assert before != after and page.is_checked('input[value="curves"]')
    assert page.input_value("#x-reference") == "data"  # and not the own last step, to which every angle ends at 0
    before, after = press_on(page, "#x-reference", "ArrowDown")
    assert before != after
    before, after = press_on(page, "#x-epoch", "Home")
    assert "At epoch 0" in after and before != after
    press_on(page, 'input[name="x-view"]:checked', "ArrowRight")
    assert page.is_checked('input[value="spectra"]')
    before, after = press_on(page, "#x-place", "ArrowRight")
    assert "At component 1" in before and "At component 2" in after
    before, after = press_on(page, "#x-layer", "ArrowDown")
    assert before != after
    press_on(page, 'input[name="x-view"]:checked', "ArrowRight")
    assert page.is_checked('input[value="layers"]')
    assert page.locator("#x-centring").is_hidden()
    before, after = press_on(page, "#x-measure", "ArrowDown")
    assert "compression" in before and "discrimination" in after
    assert page.inner_text("#x-place-out") == "4"  # the deepest feature layer
    before, after = press_on(page, "#x-place", "Home")
    assert before != after and page.inner_text("#x-place-out") == "0"
    # each view keeps its own place
    press_on(page, 'input[name="x-view"]:checked', "ArrowLeft")
    assert page.inner_text("#x-place-out") == "2"
    press_on(page, 'input[name="x-view"]:checked', "ArrowRight")
    assert page.inner_text("#x-place-out") == "0"

    # all numbers, and the epochs one after another
    page.focus("#x-table summary")
    page.keyboard.press("Enter")
    page.wait_for_selector("#x-numbers td")
    press_on(page, "#x-epoch", "End")
    page.focus("#x-play")
    page.keyboard.press("Space")
    assert page.get_attribute("#x-play", "aria-pressed") == "true"
    wait_until(page, "document.querySelector('#x-epoch').value > 1")
    page.keyboard.press("Space")
    assert page.get_attribute("#x-play", "aria-pressed") == "false"


def test_the_heat_map_holds_the_numbers_of_the_table(made_page: Path, visit: Callable[..., Page]) -> None:
    page = visit(made_page)
    made = make(n_seeds=3, epochs=8, n_components=6, stop_early=True)
    rows = made.dynamics[(made.dynamics["recipe"] == "cnn") & (made.dynamics["centring"] == "centred")]
    page.check('input[name="x-centring"][value="1"]')
    page.select_option("#x-seed", "1")
    for epoch, reference in ((0.25, "data"), (8.0, "mlp"), (2.0, "own")):
        place = sorted(made.dynamics["epoch"].unique()).index(epoch)
        page.fill("#x-epoch", str(place))
        wanted = rows[(rows["seed"] == 1) & (rows["epoch"] == epoch) & (rows["reference"] == reference)]
        heads = page.locator(".matrix thead th").all_inner_texts()
        column = heads.index("own end" if reference == "own" else reference)
        cell = page.locator(".matrix tbody tr", has=page.locator('th:text-is("cnn")')).locator("td").nth(column)
        assert float(cell.inner_text()) == pytest.approx(wanted["angle_deg"].mean(), abs=0.051)


def test_the_pointer_is_told_what_it_points_at(made_page: Path, visit: Callable[..., Page]) -> None:
    page = visit(made_page)
    page.hover(".matrix tbody tr:nth-child(2) td:nth-of-type(2)")
    assert page.inner_text("#x-say").startswith("cnn at epoch 8 to the data: angle")
    show(page, "spectra")
    page.locator(".chart circle").first.hover()
    assert "component 1: share of variance" in page.inner_text("#x-say")


def test_a_link_into_a_closed_part_opens_it(made_page: Path, visit: Callable[..., Page]) -> None:
    page = visit(made_page)
    link = page.locator("#figure-spectra img")
    assert link.is_hidden()
    page.evaluate("location.hash = '#figure-spectra'")
    link.wait_for(state="visible")


def test_hostile_names_stay_text(tmp_path: Path, visit: Callable[..., Page]) -> None:
    name = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{:03d}"
    recipes = many_recipes(2, name)
    tables = many_tables(recipes, n_steps=3, n_components=3)
    views = explorer.views(recipes, tables["dynamics"], tables["spectra"], tables["layers"])
    spec = spec_of(recipes, title="</title><script>alert(3)</script>", question="<!--<script>")
    path = tmp_path / "report.html"
    path.write_text(write_html(spec, [], {}, tables["runs"], None, "</pre><script>", [], {}, "r", views))
    page = visit(path)
    open_everything(page)
    for view in VIEWS:
        show(page, view)
        assert recipes[0]["name"] in plate(page)
    assert page.locator("script").count() == 2
    assert page.locator("img").count() == 0


def test_two_hundred_runs_stay_small_and_usable(many_page: Path, visit: Callable[..., Page]) -> None:
    page = visit(many_page)
    assert many_page.stat().st_size < 6e6
    n_elements = "document.querySelectorAll('*').length"
    assert page.evaluate(n_elements) < 12_000
    page.click("#x-filter summary")
    page.fill("#x-find", "recipe-19")
    assert page.locator("#x-recipes label:visible").count() == 10
    page.click("#x-all")
    assert page.locator(".matrix tbody tr").count() == 22  # the first twelve, and these
    page.fill("#x-find", "")
    page.click("#x-all")
    assert page.locator(".matrix tbody tr").count() == 200
    before = plate(page)
    page.press("#x-epoch", "Home")
    assert plate(page) != before
    assert page.evaluate(n_elements) < 20_000
    for view in VIEWS[1:]:
        show(page, view)
        assert page.locator(".readout tbody tr").count() == 200, view
        assert page.evaluate(n_elements) < 20_000
    assert "means over seeds" not in page.inner_text("#x-note")
    show(page, "matrix")
    assert "of 30 reference recipes the first 24 are shown" in page.inner_text("#x-note")


@pytest.mark.workflow
def test_the_report_of_a_study_works(tiny_page: Path, visit: Callable[..., Page]) -> None:
    page = visit(tiny_page)
    said = set()
    for dataset in ("digits", "rows"):
        page.select_option("#x-dataset", dataset)
        for view in VIEWS:
            show(page, view)
            said.add(plate(page))
    assert len(said) == 2 * len(VIEWS)
    broken = "[...document.images].filter((image) => image.complete && image.naturalWidth === 0).length"
    open_everything(page)
    wait_until(page, "[...document.images].every((image) => image.complete)")
    assert page.evaluate(broken) == 0

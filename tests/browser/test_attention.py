"""explore_attention in JupyterLab: mouse and keyboard, picture and words, and what Python knows of it."""

import re

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra browser").expect

MODEL = """def model(seed, blocks=8):
    torch.manual_seed(seed)
    config = BigBirdConfig(vocab_size=260, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
                           intermediate_size=16, block_size=blocks, num_random_blocks=1, max_position_embeddings=512)
    made = BigBirdModel(config)
    with torch.no_grad():
        for layer in made.layers:
            layer.query.weight.normal_(std=0.4), layer.key.weight.normal_(std=0.4)
    return made"""
CELLS = [
    "import torch\nfrom bigbird_mini import BigBirdConfig, BigBirdModel\nfrom bigbird_mini.data import ByteTokenizer\n"
    f"from bigbird_mini.viz import explore_attention\n{MODEL}",
    "tokenizer = ByteTokenizer()\nids = tokenizer.encode('A block is a handful of tokens that stay together. ' * 2)\n"
    "ids = ids[:96]\nw = explore_attention(model(0), ids, tokens=tokenizer, head=1)\nw",
]
LEFT, TOP, SIDE = 40, 34, 258  # of a map in its canvas, when there are two
TEXT, SHORT = 76, 20
TILE = SIDE + LEFT - TEXT
READ = """(c, [x, y]) => {
  const scale = c.width / parseFloat(c.style.width);
  return [...c.getContext('2d').getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data];
}"""


@pytest.fixture
def view(fresh):
    return fresh.page.locator(".bb-attention")


def canvases(view):
    """The two maps, then the two tables of tokens."""
    return view.locator("canvas")


def middle(i, j, n=12):
    return {"x": LEFT + (j + 0.5) * SIDE / n, "y": TOP + (i + 0.5) * SIDE / n}


def token(r, c, b=8):
    return {"x": TEXT + (c + 0.5) * TILE / b, "y": SHORT + (r + 0.5) * TILE / b}


def same_map(canvas, notebook, side):
    """Every block pair has the colour of its share, and those that are not read none of these colours."""
    cells, share, shades, top = notebook.value(
        f"(lambda c, s: [c.tolist(), s.tolist(), list(w.shades), max(float(np.frombuffer(x['share'], np.float32).max())"
        f" for x in (w.left, w.right) if x)])"
        f"(np.frombuffer(w.{side}['cells'], np.int32), np.frombuffer(w.{side}['share'], np.float32))"
    )
    found = dict(zip(cells, share, strict=True))
    n = notebook.value("w.blocks")
    chosen = notebook.value("w.cell")
    palette = {tuple(shades[k : k + 3]) for k in range(0, 768, 3)}
    for i in range(n):
        for j in range(n):
            if [i, j] == chosen:  # framed
                continue
            at = middle(i, j, n)
            seen = tuple(canvas.evaluate(READ, [at["x"], at["y"]])[:3])
            if i * n + j not in found:
                assert seen not in palette, f"pair {i}, {j}"
                continue
            place = round(255 * (found[i * n + j] / top) ** 0.5)
            near = [tuple(shades[3 * k : 3 * k + 3]) for k in range(max(0, place - 1), min(255, place + 1) + 1)]
            assert seen in near, f"pair {i}, {j}: {seen}"


@pytest.fixture(autouse=True)
def numpy(notebook):
    notebook.python("import numpy as np")


def test_the_first_frame_teaches(view, fresh):
    maps = canvases(view)
    same_map(maps.nth(0), fresh, "left")
    same_map(maps.nth(1), fresh, "right")
    expect(view.locator(".bb-ask")).to_contain_text("Which query block misses most")
    expect(view.get_by_text("Missed mass: full attention").first).to_be_visible()
    expect(view.get_by_role("row", name="evenly")).to_contain_text("window")
    expect(view.get_by_role("row", name="full attention")).to_contain_text("outside the pattern")
    who = fresh.value("w.token_name")
    expect(view.get_by_role("columnheader", name=f"{who} gives most to")).to_be_visible()
    expect(view.locator(".bb-cell").first).to_contain_text("of its weight to key block")
    for canvas in view.locator("canvas").all():
        assert len(canvas.get_attribute("aria-label")) > 60
    expect(view.locator(".bb-heard[aria-live=polite]")).to_contain_text("layer 0, head 1")


def test_block_pairs_by_keyboard(view, fresh):
    first = canvases(view).nth(0)
    fresh.python("w.cell = [5, 5]")
    first.focus()
    assert "2px" in first.evaluate("(c) => getComputedStyle(c).outline")
    fresh.page.keyboard.press("ArrowDown")
    fresh.until("w.cell", [6, 5])
    fresh.page.keyboard.press("Home")
    fresh.until("w.cell", [6, 0])
    share = fresh.value("dict(zip(*(x.tolist() for x in w.view.maps.masses(1)[:2])))['72']".replace("'72'", "72"))
    expect(view.locator(".bb-cell").first).to_contain_text(
        f"Query block 6 (tokens 48-55) gives {100 * share:.1f}% of its weight to key block 0 (tokens 0-7): global"
    )
    reads = fresh.value("[c - 72 for c in w.view.maps.masses(1).cells.tolist() if 72 < c < 84]")
    fresh.page.keyboard.press("Shift+ArrowRight")  # the next one that is read
    fresh.until("w.cell", [6, reads[0]])
    fresh.page.keyboard.press("End")
    fresh.until("w.cell", [6, 11])
    same_map(first, fresh, "left")
    empty = fresh.value("next(j for j in range(12) if 72 + j not in w.view.maps.masses(1).cells)")
    fresh.python(f"w.cell = [6, {empty}]")
    expect(view.locator(".bb-cell").first).to_contain_text(f"does not read key block {empty}")


def test_block_pairs_and_tokens_by_mouse(view, fresh):
    first, tile = canvases(view).nth(0), canvases(view).nth(2)
    first.hover(position=middle(0, 3))
    expect(view.locator(".bb-cell").first).to_contain_text("Query block 0 (tokens 0-7) gives")
    expect(view.locator(".bb-cell").first).to_contain_text("beside it")
    first.click(position=middle(0, 4))
    fresh.until("w.cell", [0, 4])
    weights = fresh.value("w.view.tile().tolist()")
    tile.hover(position=token(2, 5))
    text = fresh.value("[w.texts[2], w.texts[37]]")
    words = view.locator(".bb-cell").nth(1)
    expect(words).to_contain_text(f"token 2 '{text[0]}' gives ")
    expect(words).to_contain_text(f"to token 37 '{text[1]}'")
    said = float(re.search(r"gives (\S+) to", words.inner_text())[1])
    assert said == pytest.approx(weights[2][5], rel=0.01)
    tile.click(position=token(2, 5))
    fresh.until("w.spot", [2, 5])
    expect(view.get_by_role("columnheader", name=f"token 2 '{text[0]}' gives most to")).to_be_visible()
    best = fresh.value("w.tops[0]")
    expect(view.get_by_role("row", name=re.compile(re.escape(best[2]))).first).to_contain_text(best[3])
    shades, top = fresh.value("[list(w.shades), max(float(np.frombuffer(t, np.float32).max()) for t in w.tiles)]")
    at = token(3, 1)
    place = round(255 * (weights[3][1] / top) ** 0.5)
    near = [shades[3 * k : 3 * k + 3] for k in range(max(0, place - 1), min(255, place + 1) + 1)]
    assert tile.evaluate(READ, [at["x"], at["y"]])[:3] in near


def test_tokens_by_keyboard(view, fresh):
    fresh.python("w.cell = [0, 4]")
    canvases(view).nth(0).focus()
    fresh.page.keyboard.press("Enter")  # to its tokens
    tile = canvases(view).nth(2)
    expect(tile).to_be_focused()
    fresh.python("w.spot = [1, 1]")
    fresh.page.keyboard.press("ArrowDown")
    fresh.page.keyboard.press("ArrowRight")
    fresh.until("w.spot", [2, 2])
    fresh.page.keyboard.press("End")
    fresh.until("w.spot", [2, 7])
    expect(view.locator(".bb-cell").nth(1)).to_contain_text("token 2 ")
    expect(tile).to_have_attribute("aria-label", re.compile("token 2 .* gives .* to token 39"))
    fresh.page.keyboard.press("Escape")
    expect(canvases(view).nth(0)).to_be_focused()


def test_heads_and_layers(view, fresh):
    head = view.get_by_role("slider", name="head")
    head.focus()
    fresh.page.keyboard.press("ArrowRight")
    fresh.until("w.head", 2)
    expect(view.locator(".bb-name").first).to_have_text("layer 0, head 2")
    same_map(canvases(view).nth(0), fresh, "left")
    view.get_by_role("button", name="Show head 3").click()
    fresh.until("w.head", 3)
    expect(view.get_by_role("button", name="Show head 3")).to_have_attribute("aria-pressed", "true")
    expect(view.get_by_role("button", name="Show head 3")).to_be_focused()
    layer = view.get_by_role("slider", name="layer")
    layer.focus()
    fresh.page.keyboard.press("End")
    fresh.until("w.layer", 1)
    expect(view.locator(".bb-name").first).to_have_text("layer 1, head 3")
    same_map(canvases(view).nth(0), fresh, "left")
    same_map(canvases(view).nth(1), fresh, "right")
    canvases(view).nth(0).focus()
    fresh.page.keyboard.press("PageUp")
    fresh.until("w.head", 2)
    view.get_by_role("button", name="Play").click()
    fresh.until("w.head", 3)


def test_a_locked_head(view, fresh):
    view.get_by_role("button", name="Lock this head").click()
    fresh.until("[w.locked, w.beside]", [["model", 0, 1], "the locked head"])
    expect(view.locator(".bb-name").nth(1)).to_have_text("locked: layer 0, head 1")
    view.get_by_role("button", name="Show head 0").click()
    fresh.until("w.head", 0)
    expect(view.get_by_text("of their weight to the same blocks")).to_be_visible()
    same_map(canvases(view).nth(0), fresh, "left")
    same_map(canvases(view).nth(1), fresh, "right")
    assert fresh.value("w.view.locked") == ["model", 0, 1]
    canvases(view).nth(1).focus()
    fresh.page.keyboard.press("l")
    fresh.until("[w.locked, w.beside]", [[], "nothing"])
    expect(canvases(view).nth(1)).to_be_hidden()
    view.get_by_role("combobox", name="beside it").select_option("full attention, same weights")
    fresh.until("w.beside", "full attention, same weights")
    expect(canvases(view).nth(1)).to_be_visible()


def test_zoom(view, fresh):
    fresh.python("w.cell = [8, 8]")
    first = canvases(view).nth(0)
    first.focus()
    fresh.page.keyboard.press("+")
    expect(view).to_have_attribute("data-view", "5 5 6")
    for _ in range(3):
        fresh.page.keyboard.press("ArrowUp")
    fresh.until("w.cell", [5, 8])
    fresh.page.keyboard.press("ArrowUp")
    fresh.until("w.cell", [4, 8])
    expect(view).to_have_attribute("data-view", "4 5 6")  # the view follows
    fresh.page.keyboard.press("0")
    expect(view).to_have_attribute("data-view", "0 0 12")
    view.get_by_role("button", name="Zoom in").click()
    view.get_by_role("button", name="See all blocks").click()
    expect(view).to_have_attribute("data-view", "0 0 12")
    first.dblclick(position=middle(2, 2))
    expect(view).to_have_attribute("data-view", "0 0 6")
    fresh.until("w.cell", [2, 2])


def test_large_blocks_show_some_of_their_tokens_readably(view, fresh):
    fresh.python("w._models = {'model': model(1, blocks=48)}; w.read(ids)")
    fresh.until("[w.blocks, w.block_size, w.problem]", [2, 48, ""])
    fresh.python("w.cell = [0, 1]; w.spot = [40, 40]")
    expect(view).to_have_attribute("data-tile", "20 20 28")  # 28 tokens of 13 pixels, to the end of the block
    canvases(view).nth(0).focus()
    fresh.page.keyboard.press("Enter")
    fresh.page.keyboard.press("-")
    expect(view).to_have_attribute("data-tile", "0 0 48")
    fresh.page.keyboard.press("+")
    expect(view).to_have_attribute("data-tile", "20 20 28")
    fresh.page.keyboard.press("Home")
    expect(view).to_have_attribute("data-tile", "20 0 28")


def test_what_fails_is_shown_and_the_next_change_works(view, fresh):
    fresh.python("w.read(torch.zeros(2, 3, 4))")
    expect(view.get_by_role("alert")).to_contain_text("nput_ids have shape (2, 3, 4)")
    same_map(canvases(view).nth(0), fresh, "left")  # the last good one
    fresh.python("w.layer = 7")
    expect(view.get_by_role("alert")).to_contain_text("ayer=7 is out of range; allowed are 0 to 1")
    view.get_by_role("slider", name="layer").focus()
    fresh.page.keyboard.press("Home")
    expect(view.get_by_role("alert")).to_have_text("")
    same_map(canvases(view).nth(0), fresh, "left")


def test_a_model_that_cannot_run_says_so_and_gives_way_to_another(view, fresh):
    fresh.python("broken = model(0); broken.layers[0].to('meta')")
    fresh.python("w._models = {'broken': broken, 'model': model(1)}; w.models = ['broken', 'model']; w.read(ids)")
    expect(view.get_by_role("alert")).to_have_text("")
    view.get_by_role("combobox", name="model").select_option("broken")
    expect(view.get_by_role("alert")).to_contain_text("meta")
    view.get_by_role("combobox", name="model").select_option("model")
    expect(view.get_by_role("alert")).to_have_text("")
    same_map(canvases(view).nth(0), fresh, "left")


def test_in_words(view, fresh):
    view.locator("summary").focus()
    fresh.page.keyboard.press("Enter")
    expect(view.locator("pre")).to_contain_text("Missed mass")
    assert view.locator("pre").inner_text() == fresh.python("print(w.description)")


def test_every_control_can_be_reached_by_tab(view, fresh):
    canvases(view).first.focus()
    seen = set()
    for _ in range(40):
        fresh.page.keyboard.press("Tab")
        inside = "(e) => e.contains(document.activeElement) && (document.activeElement.ariaLabel"
        inside += " || document.activeElement.textContent)"
        if not (found := view.evaluate(inside)):
            break
        seen.add(found)
    shown = view.locator("input:not([disabled]), select, button:not([disabled]), summary, canvas[tabindex]")
    wanted = {e.get_attribute("aria-label") or e.inner_text() for e in shown.all() if e.is_visible()}
    assert len(seen) >= len(wanted) - 1


def test_light_and_dark(view, fresh, shot):
    looks = {}
    for theme in ("Dark", "Light"):
        fresh.theme(theme)
        looks[theme] = shot(view, f"attention_{theme.lower()}")
        same_map(canvases(view).nth(0), fresh, "left")
    assert looks["Dark"] != looks["Light"]


def test_16384_tokens(view, fresh, shot):
    code = (
        "config = BigBirdConfig(vocab_size=260, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,"
        " intermediate_size=16, max_position_embeddings=16384)\n"
        "w._models = {'model': BigBirdModel(config)}; w.read(torch.arange(16384) % 200 + 40)\n"
        "print(w.problem)"
    )
    assert fresh.python(code) == ""
    expect(view).to_have_attribute("data-view", "0 0 256")
    first = canvases(view).nth(0)
    expect(canvases(view).nth(1)).to_be_hidden()
    at = {"x": LEFT + 0.5 * 400 / 256, "y": TOP + 300}  # the global column
    palette = fresh.value("[list(w.shades[k:k + 3]) for k in range(0, 768, 3)]")
    assert first.evaluate(READ, [at["x"], at["y"]])[:3] in palette
    shot(view, "attention_16384")
    view.get_by_role("combobox", name="beside it").select_option("full attention, same weights")
    expect(view.get_by_role("alert")).to_contain_text("ull attention has 536,870,912 weights")
    expect(view.get_by_role("combobox", name="beside it").locator("option:checked")).to_have_text("nothing")
    other = 1 - fresh.value("w.head")
    view.get_by_role("button", name=f"Show head {other}").click()
    fresh.until("[w.head, w.problem]", [other, ""])

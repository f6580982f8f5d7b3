# The page in a real browser: Debian's Chromium, driven by playwright, which downloads no browser of its own here.

.PHONY: test-browser screenshots

test-browser: $(VENV)/.browser ## the live page in Chromium: every page, keyboard, live updates, accessibility
	@$(BIN)/python -m pytest -m browser tests/browser $(PYTEST)

screenshots: $(VENV)/.browser ## the README's pictures of the page, into docs/screenshots
	@$(BIN)/python tests/browser/screenshots.py

$(VENV)/.browser: requirements/browser.txt $(VENV)/.dev
	@command -v chromium >/dev/null || { \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	chromium fonts-dejavu-core >/dev/null; \
	else echo "error: Chromium is needed" >&2; \
	echo "hint: sudo apt-get install -y --no-install-recommends chromium fonts-dejavu-core" >&2; exit 2; fi; }
	@$(PIP) install --no-compile --require-hashes -r requirements/browser.txt
	@touch $@

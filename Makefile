# Two commands matter, and both work in a fresh clone: `make plan` and `make test`.
# Everything they install goes into .venv; `make clean` takes it away.
#
#   make plan ARGS="--quick --for code"       arguments for `planner plan`
#   make plan PYTHON=python3.12               another interpreter (3.11 or newer)
#   CMAKE_ARGS=-DGGML_CUDA=on make plan       an engine for NVIDIA cards, before the first call
#   make llama-server                         llama.cpp's own server, of the same sources, into .venv/bin

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Only errors come through; the notes below are ours.
INSTALL := $(RUN) -m pip -qq --disable-pip-version-check install --progress-bar off --editable

# llama.cpp is compiled, and tested, with every core that this process may use.
CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
export CMAKE_BUILD_PARALLEL_LEVEL

.PHONY: help plan test llama-server clean

help:
	@echo "make plan    install into $(VENV), then plan for this machine   (ARGS=\"--quick\" passes arguments)"
	@echo "make test    install the tools as well, then lint, types, import contracts and every test"
	@echo "make llama-server   build llama.cpp's server from the same sources into $(VENV)/bin, once"
	@echo "make clean   remove $(VENV) and all caches of this checkout"

plan: $(VENV)/.engine
	@$(RUN) -m planner plan $(ARGS)

test: $(VENV)/.dev
	@echo "ruff: style"
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m ruff format --check --quiet . || { echo "not formatted; mend with: $(RUN) -m ruff format ."; exit 1; }
	@echo "mypy: types"
	@$(RUN) -m mypy --no-error-summary
	@echo "import-linter: contracts between the rooms"
	@$(VENV)/bin/lint-imports --no-logo
ifeq ($(ARGS),)
	@echo "pytest: every test that times nothing, $(CMAKE_BUILD_PARALLEL_LEVEL) at a time"
	@$(RUN) -m pytest -m "not alone" --numprocesses $(CMAKE_BUILD_PARALLEL_LEVEL) --dist loadfile
	@echo "pytest: what times the machine, alone"
	@$(RUN) -m pytest -m alone
else
	@echo "pytest: what was asked for"
	@$(RUN) -m pytest $(ARGS)
endif

# llama.cpp's sources come inside llama-cpp-python's: the server is of the very build that plans. No page for browsers
# and no TLS, which would want further downloads and libraries; both are a proxy's work.
SERVER_BUILD := $(VENV)/llama-server-build

llama-server: $(VENV)/bin/llama-server

$(VENV)/bin/llama-server: | $(VENV)/.engine
	@echo "building llama-server; about 10 minutes on 2 cores ($(CMAKE_BUILD_PARALLEL_LEVEL) here); happens once"
	@rm -rf $(SERVER_BUILD) && mkdir -p $(SERVER_BUILD)/sources
	@version=$$($(RUN) -c 'from importlib.metadata import version; print(version("llama-cpp-python"))') \
	  && $(RUN) -m pip -qq --disable-pip-version-check install --progress-bar off cmake ninja \
	  && $(RUN) -m pip -qq --disable-pip-version-check download --progress-bar off --no-deps \
	       --no-binary llama-cpp-python --dest $(SERVER_BUILD) "llama-cpp-python==$$version" \
	  && tar -xzf $(SERVER_BUILD)/llama_cpp_python-*.tar.gz -C $(SERVER_BUILD)/sources --strip-components 1
	@$(VENV)/bin/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV)/bin/ninja) \
	    -S $(SERVER_BUILD)/sources/vendor/llama.cpp -B $(SERVER_BUILD)/out -DCMAKE_BUILD_TYPE=Release \
	    -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
	    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF $(CMAKE_ARGS) >$(SERVER_BUILD)/log 2>&1 \
	  && $(VENV)/bin/cmake --build $(SERVER_BUILD)/out --target llama-server >>$(SERVER_BUILD)/log 2>&1 \
	  || { tail -n 40 $(SERVER_BUILD)/log; echo "the build failed; its whole log is $(SERVER_BUILD)/log"; exit 1; }
	@mv $(SERVER_BUILD)/out/bin/llama-server $@ && rm -rf $(SERVER_BUILD)
	@echo "$@ is there; planner serve finds it"

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find planner tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "planner needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "this Python cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# pip says nothing while it compiles, so a second process reads the compiler's last "[12/193]" from pip's log. It ends
# with this shell, and its sleep holds no output open.
$(VENV)/.engine: pyproject.toml $(VENV)/.made
	@echo "installing planner and llama.cpp; without a wheel from an earlier time this compiles llama.cpp:"
	@echo "about 6 minutes on 2 cores ($(CMAKE_BUILD_PARALLEL_LEVEL) here); happens once, pip keeps the wheel"
	@rm -f $(VENV)/install.log; \
	( while sleep 10 >/dev/null 2>&1 </dev/null && kill -0 $$$$ 2>/dev/null; do \
	    step=$$(grep -o '\[[0-9]*/[0-9]*\]' $(VENV)/install.log 2>/dev/null | tail -n 1); \
	    if [ -n "$$step" ] && [ "$$step" != "$$last" ]; then last=$$step; echo "  compiling llama.cpp $$step"; fi; \
	  done ) & notes=$$!; \
	trap 'kill $$notes 2>/dev/null' EXIT; trap 'exit 130' INT TERM; \
	$(INSTALL) ".[engine]" --log $(VENV)/install.log \
	  || { tail -n 40 $(VENV)/install.log 2>/dev/null; \
	       echo "the installation failed; its whole log is $(VENV)/install.log"; \
	       command -v g++ >/dev/null || command -v clang++ >/dev/null \
	         || echo "llama.cpp needs a C++ compiler; on Debian or Ubuntu: apt install gcc g++ make"; \
	       exit 1; }
	@touch $@

$(VENV)/.dev: $(VENV)/.engine
	@echo "installing the tools that test it"
	@$(INSTALL) ".[engine,report,dev]"
	@touch $@

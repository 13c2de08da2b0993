// Search runs in a worker, and browsers start none from a file on the disk. There a hidden frame does its work:
// messages are copied and arrive later, as a worker's do.

if (location.protocol === "file:") {
  window.Worker = class {
    onmessage = null;
    #frame = document.createElement("iframe");
    #ready;

    constructor(url) {
      this.#frame.hidden = true;
      document.body.append(this.#frame);
      const { contentWindow: inside, contentDocument: page } = this.#frame;
      inside.postMessage = (message) => {
        const copy = structuredClone(message);
        setTimeout(() => this.onmessage?.({ data: copy }));
      };
      const script = page.createElement("script");
      script.src = url;
      this.#ready = new Promise((loaded) => {
        script.onload = loaded;
      });
      page.body.append(script);
    }

    postMessage(message) {
      const copy = structuredClone(message);
      this.#ready.then(() => setTimeout(() => this.#frame.contentWindow?.onmessage({ data: copy })));
    }

    terminate() {
      this.#frame.remove();
    }
  };
}

/* Copyright 2026 The hf-xformer authors
   SPDX-License-Identifier: Apache-2.0 */

/* Opened from the disk, a page may not start a worker. The search then runs in a hidden frame instead. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const page = frame.contentWindow;
      page.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = page.document.createElement("script");
      script.src = url;
      this.ready = new Promise((resolve) => script.addEventListener("load", () => resolve(page)));
      page.document.body.append(script);
    }

    postMessage(data) {
      this.ready.then((page) => page.dispatchEvent(new page.MessageEvent("message", { data })));
    }
  };
}

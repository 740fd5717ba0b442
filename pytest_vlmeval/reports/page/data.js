"use strict";
// What the page holds, unpacked when it is first needed.

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function held(name) {
  const element = document.getElementById(`data-${name}`);
  return element && element.textContent;
}

const parts = new Map();

// One part of the details, as a promise; parts stand below the script, so that the page
// is shown before they are read.
function loadPart(number) {
  if (!parts.has(number)) parts.set(number, unpack(held(`part-${number}`)));
  return parts.get(number);
}

async function loadDetail(index, number) {
  const part = await loadPart(Math.floor(number / index.part));
  return part[number % index.part];
}

const images = new Map();

// The address of an image's bytes in this page; "" where it is not, or not yet, there.
function imageAddress(number) {
  if (number < 0) return "";
  if (!images.has(number)) {
    const text = held(`image-${number}`);
    if (!text) return "";
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    images.set(number, URL.createObjectURL(new Blob([bytes], { type: "image/webp" })));
  }
  return images.get(number);
}

// Everything a model or a dataset wrote becomes text, never markup.
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// The address of a part of the page, in which names of samples are read by eye.
const toHash = (parameters) => `#${new URLSearchParams(parameters).toString().replaceAll("%2F", "/")}`;
const words = (name) => name.replaceAll("_", " ");
const counted = new Intl.NumberFormat("en");
